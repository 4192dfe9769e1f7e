from .comparable import comparable_group as comparable_group, find_value as find_value
from .contrast import joint_covariance as joint_covariance, student_of as student_of
from .power import CHANGES as CHANGES, PowerRow as PowerRow, power_rows as power_rows
from .request import HEADLINES as HEADLINES, GateRequest as GateRequest, gate as gate, gate_request as gate_request
from .rules import Rule as Rule, parse_name as parse_name
from .verdict import GateResult as GateResult, Verdict as Verdict
