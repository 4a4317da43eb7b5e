"""The sources call nothing that runs code from data, and start no shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("streaming_vlm_mlx", "tui", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]

UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
# Training processes send each other arrays over a pipe that nothing else holds.
MAY_PICKLE = {"streaming_vlm_mlx/train/worker_process.py"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
UNSAFE_YAML = {"load", "load_all", "full_load", "unsafe_load", "Loader", "FullLoader", "UnsafeLoader", "CLoader"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def dangers(tree: ast.AST, may_pickle: bool = False) -> Iterator[str]:
    """Yield what in a module can run code that is in data."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name in UNPICKLING and not may_pickle)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLING and not may_pickle:
                yield module
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                yield name
            case ast.Call():
                yield from _dangerous_call(node)
            case ast.Attribute(value=ast.Name(id="yaml"), attr=name) if name in UNSAFE_YAML:
                yield f"yaml.{name}"
            case ast.Constant(value="trust_remote_code"):
                yield "trust_remote_code"


def _dangerous_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    options = {option.arg: ast.unparse(option.value) for option in node.keywords}
    if name in SHELLS:
        yield name
    if options.get("shell", "False") != "False":
        yield "shell"
    if options.get("allow_pickle", "False") != "False":
        yield "allow_pickle"
    if "trust_remote_code" in options:
        yield "trust_remote_code"
    if name == "torch.load" and options.get("weights_only") != "True":
        yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_runs_no_code_from_data(path: Path) -> None:
    may_pickle = path.relative_to(ROOT).as_posix() in MAY_PICKLE
    assert not list(dangers(ast.parse(path.read_text(encoding="utf-8")), may_pickle))


@pytest.mark.parametrize(
    ("code", "danger"),
    [
        ("import pickle", "pickle"),
        ("from dill import loads", "dill"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("yaml.load(text, Loader=yaml.SafeLoader)", "yaml.load"),
        ("read(text, yaml.UnsafeLoader)", "yaml.UnsafeLoader"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("np.load(path, allow_pickle=trusted)", "allow_pickle"),
        ("torch.load(path)", "torch.load"),
        ("AutoModel.from_pretrained(name, trust_remote_code=False)", "trust_remote_code"),
        ("AutoModel.from_pretrained(name, **{'trust_remote_code': True})", "trust_remote_code"),
        ("subprocess.run(line, shell=True)", "shell"),
        ("os.system(line)", "os.system"),
    ],
)
def test_each_danger_is_found(code: str, danger: str) -> None:
    assert danger in list(dangers(ast.parse(code)))


def test_what_is_harmless_is_allowed() -> None:
    code = "yaml.safe_load(text); np.load(path, allow_pickle=False); torch.load(path, weights_only=True); mx.eval(x)"
    assert not list(dangers(ast.parse(code)))
