from .comparable import comparable_group as comparable_group, contrast_error as contrast_error, find_value as find_value
from .judge import HEADLINES as HEADLINES, GateResult as GateResult, Verdict as Verdict, gate_request as gate_request
from .rules import Rule as Rule, parse_rule as parse_rule
