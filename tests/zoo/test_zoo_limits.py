import os

import pytest

from gcaudit.audit.spec import AuditSpec
from gcaudit.data.known_table import KNOWN
from gcaudit.errors import RequestError
from gcaudit.zoo.zoo import ZooData, ZooModel, expand_models, read_zoo

ONE = "models: [runs/a.pt]\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of models and data in a folder that is not the working folder."""
    for name in (
        "runs/a.pt",
        "runs/b.pt",
        "runs/.hidden.pt",
        "x/m.pt",
        "y/m.pt",
        "nets.py",
        "photos/cat/1.png",
        "set/test.parquet",
    ):
        path = tmp_path / "zoo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "zoo"


def read(folder, text):
    (folder / "zoo.yaml").write_text(text)
    return read_zoo(folder / "zoo.yaml")


def refuse(folder, text, line, pattern):
    with pytest.raises(RequestError, match=pattern) as caught:
        read(folder, text)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'zoo.yaml'}, line {line}: expected ")
    assert message.isprintable()
    assert caught.value.exit_code == 2


def names(zoo):
    return [model.name for model in zoo.models]


def test_every_part(folder):
    found = read(
        folder,
        """
models:
  - runs/*.pt
  - model: x/m.pt
    name: Mine
    arch: nets.py:make
    arch-args: {num_classes: 10, img-size: 32}
    mean: [0.5, 0.4, 1]
    std: 0.25
    input_size: 32
    crop-pct: 1
    interpolation: bilinear
    layer: fc
    ema: true
    allow-missing: false
sources:
  - cifar10
  - {data: cifar10, name: few, split: test, classes: 0-9, max-images: 2000}
target: photos
settings:
  n-shot: [1, 5]
  gc_rtol: 0
  metrics: cdnv
  seed: 3
""",
    )
    assert names(found) == ["a", "b", "Mine"]
    assert found.models[0] == ZooModel("a", {"model": str(folder / "runs/a.pt")})
    assert found.models[2].fields == {
        "model": str(folder / "x/m.pt"),
        "arch": f"{folder / 'nets.py'}:make",
        "arch_args": {"num_classes": 10, "img-size": 32},
        "mean": (0.5, 0.4, 1),
        "std": (0.25,),
        "input_size": (32, 32),
        "crop_pct": 1,
        "interpolation": "bilinear",
        "layer": "fc",
        "ema": True,
        "allow_missing": False,
    }
    assert found.sources == (ZooData("cifar10", "cifar10", None, None, None), ZooData("few", "cifar10", "test", "0-9", 2000))
    assert found.targets == (ZooData("photos", str(folder / "photos"), None, None, None),)
    assert found.settings == {"n_shot": (1, 5), "gc_rtol": 0, "metrics": ("cdnv",), "seed": 3}
    spec = AuditSpec.from_options(
        **found.models[2].fields, **found.sources[1].fields("source"), **found.targets[0].fields("target"), **found.settings
    )
    assert (spec.source.split, spec.source.max_images, spec.target.spec, spec.run.seed) == ("test", 2000, str(folder / "photos"), 3)


def test_fields_of_data():
    assert ZooData("a", "b", None, None, None).fields("target") == {"target": "b"}
    assert ZooData("a", "b", "train", "1,2", 7).fields("source") == {
        "source": "b",
        "source_split": "train",
        "source_classes": "1,2",
        "source_max_images": 7,
    }


def test_models_alone(folder):
    found = read(folder, ONE)
    assert (found.sources, found.targets, found.settings) == ((), (), {})


def test_short_and_long_forms_are_one(folder):
    assert read(folder, ONE + "source: cifar10\ntarget: photos") == read(
        folder, "models:\n- {model: runs/a.pt}\nsources:\n- {data: cifar10}\ntargets: [photos]"
    )
    assert read(folder, ONE + "source: {data: demo, classes: 5}").sources[0].classes == "5"


def test_every_field_of_a_spec_has_one_place(folder):
    defaults = {"model": None, "source": None, "target": None} | AuditSpec.from_options("a model", "its data").to_options()
    fields = set(defaults)
    of_data = {name for name in fields if name.split("_")[0] in ("source", "target") and name != "target_gc"}
    of_models = {
        "model",
        "arch",
        "arch_args",
        "ema",
        "weights_key",
        "prefix",
        "allow_missing",
        "max_parameters",
        "layer",
        "mean",
        "std",
        "input_size",
        "crop_pct",
        "interpolation",
    }
    text = {"False": "false", "None": "1", "(5,)": "5"}
    for name in sorted(fields - of_data - of_models):
        default = defaults[name]
        value = {"data_root": "d", "metrics": "cdnv", "n_query": "all"}.get(name, text.get(str(default), default))
        assert name in read(folder, f"{ONE}settings:\n  {name.replace('_', '-')}: {value}").settings
    for name in sorted(of_data | of_models):
        refuse(folder, f"{ONE}settings:\n  seed: 1\n  {name}: 1", 4, "belongs under (models|sources or targets)")


def test_words_for_no_limit(folder):
    found = read(folder, ONE + "settings: {n-query: all, gc-images: all, batch-size: auto}")
    assert found.settings == {"n_query": None, "gc_images": None, "batch_size": None}


def test_paths_stay_as_typed_in_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "zoo.yaml").write_text("models: ['runs/*.pt', {model: x/m.pt, arch: nets.py:make}]\nsource: photos")
    found = read_zoo(folder.__class__("zoo.yaml"))
    assert [model.fields["model"] for model in found.models] == ["runs/a.pt", "runs/b.pt", "x/m.pt"]
    assert found.models[2].fields["arch"] == "nets.py:make"
    assert found.sources[0].spec == "photos"


def test_paths_are_relative_to_the_file(folder):
    (folder.parent / "elsewhere" / "runs").mkdir()
    (folder.parent / "elsewhere" / "runs" / "other.pt").touch()
    found = read(folder, f"models: ['runs/*.pt', {folder / 'x/m.pt'}, ../zoo/y/m.pt, '~/m.pt', new.pt]")
    assert [os.path.normpath(model.fields["model"]) for model in found.models] == [
        *(str(folder / name) for name in ("runs/a.pt", "runs/b.pt", "x/m.pt", "y/m.pt")),
        "~/m.pt",
        str(folder / "new.pt"),
    ]


def test_names_are_no_paths(folder):
    models = ["timm:resnet18", "hf-hub:timm/resnet18.a1_in1k", "torchvision:resnet18:IMAGENET1K_V1", "demo"]
    data = [*(entry.name for entry in KNOWN), "hf:a/b", "torchvision:CIFAR10", "nothing/here"]
    for name in (*models, *data):
        if ":" not in name and "/" not in name:
            (folder / name).mkdir(exist_ok=True)
    found = read(folder, f"models: {models}\nsources: {data}\n")
    assert [model.fields["model"] for model in found.models] == models
    assert names(found) == models
    assert [entry.spec for entry in found.sources] == data


def test_data_paths(folder):
    found = read(folder, ONE + "sources: [photos, 'set/*.parquet', 'disk:runs']")
    assert [entry.spec for entry in found.sources] == [
        str(folder / "photos"),
        str(folder / "set/*.parquet"),
        f"disk:{folder / 'runs'}",
    ]
    assert [entry.name for entry in found.sources] == ["photos", "set", "runs"]


def test_code_that_is_no_file_stays(folder):
    assert read(folder, "models: [{model: runs/a.pt, arch: 'timm:resnet18'}]").models[0].fields["arch"] == "timm:resnet18"
    assert read(folder, "models: [{model: runs/a.pt, arch: 'nets.py:make'}]").models[0].fields["arch"] == f"{folder}/nets.py:make"
    assert read(folder, "models: [{model: runs/a.pt, arch: 'nets.inner:make'}]").models[0].fields["arch"] == "nets.inner:make"


def test_globs_of_published_weights(folder):
    found = read(folder, "models: ['timm:test_vit*', 'torchvision:resnet1?']")
    assert "timm:test_vit.r160_in1k" in names(found)
    assert names(found)[-1] == "torchvision:resnet18"
    assert names(found) == [model.fields["model"] for model in found.models]


def test_an_explicit_entry_replaces_that_of_a_glob(folder):
    found = read(folder, "models:\n- runs/*.pt\n- {model: runs/a.pt, ema: true}\n")
    assert sorted((model.name, model.fields.get("ema")) for model in found.models) == [("a", True), ("b", None)]


def test_names_tell_paths_apart(folder):
    found = read(folder, "models: [x/m.pt, y/m.pt]")
    assert names(found) == ["x/m", "y/m"]
    found = read(folder, "models:\n- {model: runs/a.pt, name: A}\n- {model: runs/a.pt, name: B, ema: true}")
    assert names(found) == ["A", "B"]


def test_typed_models(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = expand_models(["runs/*.pt", "x/m.pt", "runs/a.pt", "timm:resnet18"], {"ema": True})
    assert found == tuple(
        ZooModel(name, {"model": model, "ema": True})
        for name, model in (("a", "runs/a.pt"), ("b", "runs/b.pt"), ("m", "x/m.pt"), ("timm:resnet18", "timm:resnet18"))
    )
    with pytest.raises(RequestError, match=r"expected models that match 'no/\*\.pt', found none"):
        expand_models(["no/*.pt"], {})


def test_a_file_whose_name_looks_like_a_pattern(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "runs" / "acc[0.9].pt").touch()
    assert expand_models(["runs/acc[0.9].pt"], {})[0].fields["model"] == "runs/acc[0.9].pt"


@pytest.mark.parametrize(
    ("text", "line", "pattern"),
    [
        (ONE + "settings:\n  seed: a\n", 3, "'seed'.*found 'a'"),
        (ONE + "settings:\n  n_shot: x\n", 3, "found 'x'"),
        (ONE + "settings:\n  n-shot:\n  - 1\n  - x\n", 5, "found 'x'"),
        (ONE + "settings:\n  seed: true\n", 3, "'seed'.*found True"),
        (ONE + "settings:\n  episodes: 1.5\n", 3, "'episodes'.*found 1.5"),
        (ONE + "settings:\n  seed: 1\n  gc: foo\n", 4, "expected --gc of sketch, exact, outputs; found 'foo'"),
        (ONE + "settings:\n  metrics: [cdnv, cdnw]\n", 3, "cdnw"),
        (ONE + "settings:\n  ridge: .nan\n", 3, "expected --ridge above 0, found nan"),
        (ONE + "settings:\n  n-shots: 1\n", 3, r"found 'n-shots'; did you mean n-shot\?"),
        (ONE + "settings: [1]\n", 2, "'settings'.*found a list of 1"),
        (ONE + "setting: {}\n", 2, r"found 'setting'; did you mean settings\?"),
        (ONE + "qqqqqqqq: {}\n", 2, "found 'qqqqqqqq'; known: models, sources, targets, settings"),
        (ONE + "on: 1\n", 2, "found True"),
        ("models:\n- model: runs/a.pt\n  archs: x\n", 3, r"found 'archs'; did you mean arch\?"),
        ("models:\n- model: runs/a.pt\n  mean: [0.1,\n    x]\n", 4, "found 'x'"),
        ("models:\n- model: runs/a.pt\n  input-size: [1, 2, 3]\n", 3, "'input-size'.*found a list of 3"),
        ("models:\n- runs/a.pt\n- name: x\n", 3, "expected the key 'model', found none"),
        ("models:\n- runs/a.pt\n- 3\n", 3, "found 3"),
        ("models: runs/a.pt\n", 1, "'models'.*found 'runs/a.pt'"),
        ("models: []\n", 1, "'models'.*found a list of 0"),
        ("sources: cifar10\n", 1, "expected the key 'models', found none"),
        ("", 1, "expected the key 'models', found none"),
        ("- a\n", 1, "expected the keys models, sources, targets and settings, found list"),
        (ONE + "sources: []\n", 2, "'sources'.*found a list of 0"),
        (ONE + "source: a\nsources: b\n", 2, "expected one of source and sources, found both"),
        (ONE + "sources:\n- {data: cifar10, max-image: 3}\n", 3, r"found 'max-image'; did you mean max-images\?"),
        (ONE + "source:\n  data: cifar10\n  max_images: x\n", 4, "'max-images'.*found 'x'"),
        (ONE + "sources:\n- split: test\n", 3, "expected the key 'data', found none"),
        (ONE + "sources:\n- demo\n- demo\n", 4, "expected names that differ, found 'demo' twice"),
        ("models:\n- runs/a.pt\n- no/*.pt\n", 3, r"expected models that match '.*no/\*\.pt', found none"),
        ("models:\n- 'timm:nothing_*'\n", 2, r"expected models that match 'timm:nothing_\*', found none"),
        ("models:\n- runs/a.pt\n- ./runs/a.pt\n", 3, "expected each model once, found that of line 2 again"),
        (
            "models:\n- {model: runs/a.pt, name: A}\n- {model: runs/b.pt, name: A}\n",
            3,
            "expected names that differ, found 'A' twice",
        ),
        ("models:\n- {model: runs/*.pt, name: A}\n", 2, "expected a name for one model, found 2 that match"),
        (ONE + ONE, 2, "expected each key once, found 'models' again"),
        (ONE + "settings:\n  n-shot: 1\n  n_shot: 2\n", 4, "expected each key once, found 'n-shot' again"),
        ("models: [a\nb: c\n", 2, "expected YAML: "),
        (ONE + "---\n" + ONE, 2, "expected YAML: but found another document"),
        (ONE + "settings:\n  seed: !!python/name:os.system x\n", 3, "expected plain .*python/name:os.system"),
        ("a: &a [" + "1," * 300 + "1]\nb: &b [" + "*a," * 300 + "*a]\nmodels: [*b, *b]\n", 1, "at most 100000 parts, found more"),
    ],
)
def test_wrong_files_are_told_with_their_line(folder, text, line, pattern):
    refuse(folder, text, line, pattern)


def test_files_that_cannot_be_read(folder):
    path = folder / "zoo.yaml"
    with pytest.raises(RequestError, match=f"expected a file of models at {path}: No such file or directory"):
        read_zoo(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RequestError, match=f"expected a file of models at {path}: not text"):
        read_zoo(path)
    path.write_text("#" * (2**20 + 1))
    with pytest.raises(RequestError, match="of at most 1 MiB, found 1048577 bytes"):
        read_zoo(path)


@pytest.mark.parametrize("key", ["seed", "gc-rtol", "vectors", "n-shot", "n-query"])
def test_a_setting_without_a_value(folder, key):
    refuse(folder, f"{ONE}settings:\n  {key}:\n", 3, f"expected a value for '{key}', found none; leave the key out")


def test_settings_with_nothing_below(folder):
    assert read(folder, ONE + "settings:\n").settings == {}


def test_numbers_with_an_exponent(folder):
    assert read(folder, ONE + "settings: {ridge: 1e-3}").settings == {"ridge": 1e-3}
    refuse(folder, ONE + "settings: {seed: 1e3}", 2, "expected for 'seed': a whole number; found '1e3'")


@pytest.mark.parametrize(
    ("text", "line", "pattern"),
    [
        ("a: 1\nmodels: &a [*a]\n", 2, "expected at most 50 levels, found more"),
        (ONE + "settings:\n  ? [a, b]\n  : c\n", 3, "expected a key, found a sequence"),
        (ONE + "settings:\n  seed: !!bool foo\n", 3, "expected a plain value, found 'foo' where YAML wants bool"),
        (ONE + "settings:\n  seed: !!int ''\n", 3, "expected a plain value, found '' where YAML wants int"),
        (ONE + "settings:\n  seed: !!timestamp foo\n", 3, "expected a plain value, found 'foo' where YAML wants timestamp"),
        (ONE + "settings:\n  n-shot: !!set {1, 2}\n", 3, "expected plain YAML, found the tag"),
        (ONE + "\x07\n", 2, "expected YAML: special characters are not allowed"),
        (ONE + "settings:\n  seed: " + "a" * 2000, 3, "found 'a{40,80}$"),
        ("models:\n- runs/a.pt\n- ''\n", 3, "expected for 'model': some text; found ''"),
        (ONE + "source:\n  data: ''\n", 3, "expected for 'data': some text; found ''"),
        (ONE + "source:\n  data: demo\n  classes: true\n", 4, "expected for 'classes': text; found True"),
        (ONE + "sources:\n- demo\n- {data: cifar10, max-images: 0}\n", 4, "expected --source-max-images of at least 1, found 0"),
        ("models:\n- '~no-such-user/*.pt'\n", 2, "expected a pattern such as runs/"),
    ],
)
def test_traps(folder, text, line, pattern):
    refuse(folder, text, line, pattern)


def test_deep_nesting(folder):
    with pytest.raises(RequestError, match="expected at most 50 levels, found more"):
        read(folder, "models: " + "[" * 3000 + "]" * 3000)


def test_of_two_errors_always_the_same_is_told(folder):
    fields = read(folder, "models: [{std: 1, model: runs/a.pt, mean: 1, layer: x, ema: true}]").models[0].fields
    assert list(fields) == ["model", "ema", "layer", "mean", "std"]


def test_a_glob_of_letters_is_a_glob(folder):
    found = read(folder, "models:\n- runs/[ab].pt\n- runs/a.pt\n")
    assert sorted(names(found)) == ["a", "b"]


def test_globs_that_overlap(folder):
    assert names(read(folder, "models: ['runs/*.pt', 'runs/a*']")) == ["a", "b"]


def test_names_where_one_model_stands_twice_or_suffixes_differ(folder):
    (folder / "runs" / "a.safetensors").touch()
    found = read(folder, "models:\n- {model: runs/a.pt, name: A}\n- {model: runs/a.pt, name: B, ema: true}\n- runs/b.pt")
    assert names(found) == ["A", "B", "b"]
    assert names(read(folder, "models: [runs/a.pt, runs/a.safetensors]")) == ["a.pt", "a.safetensors"]


def test_a_model_in_a_folder_called_as_a_data_set(folder):
    (folder / "mnist").mkdir()
    assert read(folder, "models: [mnist]").models[0].fields["model"] == str(folder / "mnist")


def test_names_of_data_on_the_hub(folder):
    assert read(folder, ONE + "source: 'hf:uoft-cs/cifar10:plain_text'").sources[0].name == "cifar10:plain_text"


def test_a_name_too_long_for_the_disk_is_left_to_the_reader(folder):
    assert read(folder, f"models: [{'a' * 5000}]").models[0].fields["model"] == "a" * 5000
