"""Heads that were made to harm: each is refused in one sentence, and nothing of what it brings has run by then."""

import io
import json
import os
import re
import zipfile

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from skops.io import dumps

from featurecache.base.errors import SavedHeadError
from featurecache.classify.heads.saving.folder import load_head

LABELS = np.arange(60) % 3
X = np.random.default_rng(0).normal(size=(60, 5)) + np.eye(5)[LABELS]
RUN = "numpy.testing._private.utils.runstring"
MEASURE = "numpy.testing._private.utils.measure"


def node(loader, name, **parts):
    module, _, class_name = name.rpartition(".")
    return {"__class__": class_name, "__module__": module, "__loader__": loader, **parts}


def plain(value):
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def several(loader, name, *items):
    return node(loader, name, content=list(items))


def keyed(name="builtins.dict", key_type="builtins.str", **items):
    key_types = several("ListNode", "builtins.list", *(node("TypeNode", key_type) for _ in items))
    return node("DictNode", name, content=items, key_types=key_types)


def called(name, *arguments, loader="ConstructorFromReduceNode", **parts):
    return node(loader, name, content=several("TupleNode", "builtins.tuple", *map(plain, arguments)), **parts)


def run_code(trace):
    """The payload: numpy's own `exec`, on code that leaves a file."""
    return called(RUN, code(trace), {})


def code(trace):
    return f"open({str(trace)!r}, 'w').close()"


def reduced(name, loader, *arguments, state=None):
    arguments = several("TupleNode", "builtins.tuple", *map(plain, arguments))
    return node(loader, name, __reduce__={"args": arguments}, content=state or keyed())


def bayes(**values):
    return node("ObjectNode", "sklearn.naive_bayes.GaussianNB", content=keyed(**values))


def generator(state, **parts):
    seed = keyed(entropy=plain(0), spawn_key=plain(0), pool_size=plain(4), n_children_spawned=plain(0))
    return node(
        "RandomGeneratorNode",
        "numpy.random._generator.Generator",
        content={"bit_generator": state, "seed_seq": seed},
        **parts,
    )


def transformer(trace):
    function = node("FunctionNode", MEASURE)
    step = node(
        "ObjectNode", "sklearn.preprocessing._function_transformer.FunctionTransformer", content=keyed(func=function)
    )
    steps = several("ListNode", "builtins.list", several("TupleNode", "builtins.tuple", plain("step"), step))
    return node("ObjectNode", "sklearn.pipeline.Pipeline", content=keyed(steps=steps))


def of_one_number(trace):
    """skops builds the first of two nodes with one number at the place of the second, which looks harmless."""
    harmless = keyed(bit_generator=plain("PCG64"))
    return bayes(a=keyed(bit_generator=plain("seed")) | {"__id__": 7}, b=generator(harmless | {"__id__": 7}))


def deep(levels):
    inner = plain(1)
    for _ in range(levels):
        inner = several("ListNode", "builtins.list", inner)
    return bayes(a=inner)


# What the first node of a head.skops is, given the path of the trace; and what is said.
ROUTES = {
    "a call that runs code": (run_code, "builds numpy.testing._private.utils.runstring by ConstructorFromReduceNode"),
    "a call of numpy.load": (lambda t: called("numpy.load", str(t) + ".pkl", None, True), "builds numpy.load by"),
    "a call of numpy.f2py": (lambda t: called("numpy.f2py.capi_maps.load_f2cmap_file", str(t)), "numpy.f2py"),
    "a call of scipy": (lambda t: called("scipy._lib._testutils.check_free_memory", 1), "scipy._lib"),
    "a call of sklearn.datasets": (lambda t: called("sklearn.datasets._base.get_data_home", str(t)), "get_data_home"),
    "a call of sklearn.utils": (lambda t: called("sklearn.utils._testing.raises", 1), "sklearn.utils._testing"),
    "an object of a function": (lambda t: node("ObjectNode", RUN, content=keyed()), "runstring .ObjectNode."),
    "inside a parameter": (lambda t: bayes(priors=run_code(t)), "builds numpy.testing"),
    "inside a list in a parameter": (
        lambda t: bayes(priors=several("ListNode", "builtins.list", run_code(t))),
        "builds numpy.testing",
    ),
    "the keys of a dict": (
        lambda t: bayes(a=keyed(key_type=MEASURE, **{code(t): plain(1)})),
        "a dict with keys of numpy.testing._private.utils.measure",
    ),
    "the types of keys as a call": (
        lambda t: bayes(a=keyed(a=plain(1)) | {"key_types": run_code(t)}),
        "a dict whose keys have no types",
    ),
    "a dict that is a function": (lambda t: keyed(RUN, a=plain(1)), "runstring .DictNode."),
    "a list that is a function": (lambda t: several("ListNode", MEASURE, plain(code(t))), "measure .ListNode."),
    "a tuple that is a class": (lambda t: several("TupleNode", "numpy.lib._npyio_impl.NpzFile"), "NpzFile .TupleNode."),
    "an array of objects": (
        lambda t: bayes(
            a=node(
                "NdArrayNode",
                "numpy.ndarray",
                type="json",
                content=[run_code(t)],
                shape=several("TupleNode", "builtins.tuple", plain(1)),
            )
        ),
        "builds numpy.testing",
    ),
    "the shape of an array": (
        lambda t: bayes(a=node("NdArrayNode", "numpy.ndarray", type="json", content=[], shape=run_code(t))),
        "builds numpy.testing",
    ),
    "an array that is a function": (
        lambda t: bayes(a=node("NdArrayNode", MEASURE, type="numpy", file="1.npy")),
        "measure .NdArrayNode.",
    ),
    "numpy.lib": (lambda t: node("TypeNode", "numpy.lib._npyio_impl.load"), "numpy.lib._npyio_impl.load by TypeNode"),
    "a ufunc": (lambda t: bayes(a=node("FunctionNode", "numpy.add")), "builds numpy.add by FunctionNode"),
    "a loss that runs code": (lambda t: bayes(a=reduced(RUN, "LossNode", code(t), {})), "runstring .LossNode."),
    "the arguments of a loss": (
        lambda t: bayes(
            a=reduced("sklearn.linear_model._sgd_fast.Hinge", "LossNode") | {"__reduce__": {"args": run_code(t)}}
        ),
        "arguments that are no tuple",
    ),
    "a state of random numbers": (
        lambda t: bayes(a=node("RandomStateNode", "sklearn.show_versions", content=keyed())),
        "show_versions .RandomStateNode.",
    ),
    "a generator of random numbers": (
        lambda t: bayes(a=generator(keyed(bit_generator=plain("seed")))),
        "a generator of random numbers that is not numpy's own",
    ),
    "two nodes of one number": (of_one_number, "two nodes of the number 7"),
    "MethodNode": (
        lambda t: node("MethodNode", "sklearn.naive_bayes.GaussianNB", content={"obj": bayes(), "func": "fit"}),
        "by MethodNode",
    ),
    "PartialNode": (
        lambda t: bayes(
            a=node(
                "PartialNode",
                "functools.partial",
                content={"func": node("FunctionNode", RUN), "args": keyed(), "kwds": keyed(), "namespace": plain(None)},
            )
        ),
        "builds functools.partial by PartialNode",
    ),
    "OperatorFuncNode": (
        lambda t: bayes(a=node("OperatorFuncNode", "operator.methodcaller", attrs=plain("fit"))),
        "builds operator.methodcaller by OperatorFuncNode",
    ),
    "a function of an old protocol": (
        lambda t: node("FunctionNode", RUN, content={"module_path": "os", "function": "system"}) | {"protocol": 0},
        "by FunctionNode",
    ),
    "a dict that makes its values": (
        lambda t: bayes(
            a=node(
                "DefaultDictNode",
                "collections.defaultdict",
                content={"main": keyed(), "default_factory": node("TypeNode", RUN)},
            )
        ),
        "by DefaultDictNode",
    ),
    "a matrix in a zip": (
        lambda t: bayes(a=node("SparseMatrixNode", "scipy.sparse.csr_matrix", type="scipy", file="1.npy")),
        "by SparseMatrixNode",
    ),
    "a node met before": (lambda t: bayes(a=node("CachedNode", "builtins.str", __id__=1)), "by CachedNode"),
    "a FunctionTransformer": (transformer, "FunctionTransformer .ObjectNode."),
    "a function of the Python library": (lambda t: node("ObjectNode", "os.system"), "os.system .ObjectNode."),
    "a type of ours": (
        lambda t: node("ObjectNode", "classify.foreign.ForeignHead", content=keyed()),
        "ForeignHead",
    ),
    "what is no classifier": (
        lambda t: node("ObjectNode", "sklearn.preprocessing._data.StandardScaler", content=keyed()),
        "StandardScaler, which is no scikit-learn classifier",
    ),
    "a pipeline that is no classifier": (
        lambda t: node("ObjectNode", "sklearn.pipeline.Pipeline", content=keyed(steps=plain(1))),
        "is not a complete head|which is no scikit-learn classifier",
    ),
    "parts that skops ignores": (lambda t: bayes() | {"attrs": run_code(t)}, "with parts that skops does not write"),
    "a number that is text": (lambda t: bayes() | {"__id__": "1"}, "two nodes of the number '1'"),
    "no nodes": (lambda t: {"a": run_code(t)}, "is not what scikit-learn's heads are saved as"),
    "a number": (lambda t: 7, "is not what scikit-learn's heads are saved as"),
    "JSON inside JSON": (lambda t: bayes(a=plain([1])), "JSON inside JSON"),
    "nodes that never end": (lambda t: deep(200), "more than 64 deep"),
    "values that hide a method": (
        lambda t: bayes(predict=plain(1), classes_=plain(1)),
        r"GaussianNB has a value \['predict'\] where its class has something else",
    ),
    "an estimator that has learned nothing": (lambda t: bayes(), "is not a complete head"),
}


def npy(array):
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=False)
    return packed.getvalue()


def skops_file(root, members=()):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, blob in dict(members).items():
            file.writestr(name, blob)
        protocol = {"protocol": 2} if isinstance(root, dict) else {}
        file.writestr("schema.json", json.dumps(protocol | root if protocol else root))
    return packed.getvalue()


def refusal(folder, **options):
    with pytest.raises(SavedHeadError) as refused:
        load_head(folder, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_a_head_that_would_run_code_is_refused_and_has_run_nothing(route, trust, tmp_path, write_skops_head):
    build, said = ROUTES[route]
    trace = tmp_path / "trace"
    folder = write_skops_head(tmp_path / "head", skops_file(build(trace), {"1.npy": npy(np.ones(2))}))
    if trust and route == "values that hide a method":
        said = "is not a complete head"
    assert re.search(said, refusal(folder, trust=trust))
    assert not trace.exists()


@pytest.mark.parametrize("place", ["estimator", "estimator_", "temperature", "note_", "extra"])
def test_nothing_runs_inside_a_head_of_format_1_either(place, tmp_path, write_skops_head):
    trace = tmp_path / "trace"
    values = {"estimator": bayes(), "estimator_": bayes(), "temperature": plain(1.0), "n_features_in_": plain(5)}
    values |= {"converged_": plain(True), "note_": plain(""), place: run_code(trace)}
    head = node("ObjectNode", "classify.foreign.ForeignHead", content=keyed(**values))
    folder = write_skops_head(tmp_path / "head", skops_file(head), format=1)
    assert "runstring" in refusal(folder)
    assert not trace.exists()


def zip_bomb():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("1.npy", npy(np.zeros(10**7)))
        file.writestr("schema.json", json.dumps(bayes() | {"protocol": 2}))
    return packed.getvalue()


def overlapping():
    """Every member is the same 80 kB: more than the file together."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("schema.json", json.dumps(bayes() | {"protocol": 2}))
        file.writestr("1.npy", npy(np.zeros(10**4)))
        info = file.getinfo("1.npy")
        for number in range(2, 50):
            other = zipfile.ZipInfo(f"{number}.npy")
            other.header_offset, other.CRC = info.header_offset, info.CRC
            other.file_size = other.compress_size = info.file_size
            file.filelist.append(other)
            file.NameToInfo[other.filename] = other
    return packed.getvalue()


def array_of(blob):
    return skops_file(bayes(a=node("NdArrayNode", "numpy.ndarray", type="numpy", file="1.npy")), {"1.npy": blob})


def promising(shape, descr="<f8"):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (zip_bomb, "compressed or encrypted"),
        (overlapping, "larger unpacked than it can be"),
        (
            lambda: skops_file(bayes(), {"../../trace": b""}),
            "a member called '../../trace', which skops does not write",
        ),
        (lambda: skops_file(bayes(), {"/tmp/1.npy": b""}), "a member called '/tmp/1.npy'"),
        (lambda: skops_file(bayes(), [("schema.json", b"{}")]), "two of one name"),
        (lambda: array_of(promising((10**15,))), "no array of numbers or text as large as it says"),
        (lambda: array_of(promising((10**15,), "<U0")), "no array of numbers or text as large as it says"),
        (
            lambda: array_of(promising((2,), "|O") + b"cos\nsystem\n."),
            "no array of numbers or text as large as it says",
        ),
        (lambda: array_of(b"\x80\x04cos\nsystem\n."), "is not what scikit-learn's heads are saved as"),
        (
            lambda: skops_file(bayes(a=node("NdArrayNode", "numpy.ndarray", type="numpy", file="../1.npy"))),
            "is not what",
        ),
        (lambda: b"[" * 200_000, "cannot be read"),
        (lambda: b"", "cannot be read"),
        (lambda: skops_file(bayes())[:-30], "cannot be read"),
    ],
)
def test_a_file_that_is_not_what_its_sizes_and_names_say_is_refused(blob, said, tmp_path, write_skops_head):
    assert said in refusal(write_skops_head(tmp_path / "head", blob()))


def test_a_schema_nested_without_end_is_refused(tmp_path, write_skops_head):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("schema.json", "[" * 200_000)
    folder = write_skops_head(tmp_path / "head", packed.getvalue())
    assert "is not what scikit-learn's heads are saved as" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["../other/head.skops", "/etc/passwd", "head.safetensors", "head.json", None, ["head.skops"]]
)
def test_a_document_that_names_another_file_is_refused(name, tmp_path, write_skops_head):
    folder = write_skops_head(tmp_path / "head", dumps(GaussianNB().fit(X, LABELS)), file=name)
    assert "which no such head has" in refusal(folder)


@pytest.mark.parametrize("name", ["head.json", "head.skops"])
def test_a_file_that_is_a_link_is_refused(name, tmp_path, write_skops_head):
    folder = write_skops_head(tmp_path / "head", dumps(GaussianNB().fit(X, LABELS)))
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert "is a link or not a regular file: copy the head itself" in refusal(folder)


@pytest.mark.parametrize("name", ["head.json", "head.skops"])
def test_a_pipe_is_refused_rather_than_waited_for(name, tmp_path, write_skops_head):
    folder = write_skops_head(tmp_path / "head", b"")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "is a link or not a regular file" in refusal(folder)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"format": NaN}', "9" * 10**6, " " * (2**26 + 1)])
def test_a_document_without_end_is_refused(text, tmp_path, write_skops_head):
    folder = write_skops_head(tmp_path / "head", b"")
    (folder / "head.json").write_text(text)
    assert "head.json cannot be read" in refusal(folder)
