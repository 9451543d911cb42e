"""The SGLang underneath is one that was read, and each workaround is still needed."""

import ast
import dataclasses
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import upstream_sources
from sgl_proxythinker import patches
from sgl_proxythinker.patches import RECORDS, STAGES
from sgl_proxythinker.policy.body_fields import BODIES
from sgl_proxythinker.upstream.record import Sources, Upstream, UpstreamDrift, read_definition
from upstream_sources import (
    SOURCE,
    declared_arguments,
    declared_fields,
    declared_routes,
    of_what_is_imported,
    sources_of,
)

PACKAGE = Path(__file__).parent.parent / "sgl_proxythinker"


@pytest.mark.sources
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.symbol)
def test_each_definition_is_the_one_that_was_read(record):
    record.check(sources_of(record.package))


@of_what_is_imported
@pytest.mark.parametrize(
    "symbol",
    [
        "sglang.srt.server_args:ServerArgs",
        "sglang.srt.managers.io_struct:GenerateReqInput",
        "sglang.srt.sampling.sampling_params:SamplingParams",
        "sglang.srt.model_executor.forward_batch_info:ForwardBatch",
        *sorted({body.declared_by for body in BODIES.values()}),
    ],
)
def test_the_source_text_has_the_fields_of_the_class(symbol, sglang):
    """What is classified is read there."""
    found = pkgutil.resolve_name(symbol)
    if hasattr(found, "model_fields"):
        fields = set(found.model_fields)
    elif hasattr(found, "__struct_fields__"):
        fields = set(found.__struct_fields__)
    else:
        fields = {field.name for field in dataclasses.fields(found)}
    assert declared_fields(symbol) == fields


class TestReadSources:
    """Declarations as another release may write them."""

    @pytest.fixture
    def write(self, tmp_path, monkeypatch):
        monkeypatch.setattr("upstream_sources.SOURCE", tmp_path)
        upstream_sources._parse.cache_clear()

        def write(name: str, text: str) -> str:
            file = tmp_path / "sglang" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return f"sglang.{name}"

        yield write
        upstream_sources._parse.cache_clear()

    def test_fields_of_a_base_count_wherever_it_stands(self, write):
        write("far", "@dataclasses.dataclass\nclass Far:\n    far: int = 0\n")
        write("near", "from sglang.far import Far\n")
        module = write(
            "mod",
            "from sglang.near import Far\nfrom pydantic import BaseModel\n"
            "class Mixin:\n    typed: int\n"
            "class Near(Mixin, Far, BaseModel):\n    near: A[int, Arg(help='x')] = 1\n"
            "class C(Near):\n    own: int\n    _private: int\n    N: ClassVar[int] = 3\n    method = 1\n",
        )
        assert declared_fields(f"{module}:C") == {"far", "near", "own"}

    def test_arguments_are_those_of_all_namespaces_where_there_are_some(self, write):
        write("srt/server_args", "@dataclass\nclass ServerArgs:\n    old: int = 0\n")
        assert declared_arguments() == {"old"}
        write("srt/arg_groups/fields/one", "class One(msgspec.Struct):\n    a: A[int, 'help'] = 0\n")
        write("srt/arg_groups/fields/two", "class Two(msgspec.Struct):\n    b: int\nclass Three(Two):\n    c: int\n")
        assert declared_arguments() == {"a", "b", "c"}

    def test_a_class_that_declares_nothing_is_an_error(self, write):
        """Kills: another release whose fields stand elsewhere, and would all seem to be classified."""
        module = write("mod", "class C:\n    pass\n")
        with pytest.raises(ValueError, match="sglang.mod:C declares no fields"):
            declared_fields(f"{module}:C")

    def test_routes_are_read_where_they_are_declared(self, write):
        write("more", "@router.get('/more')\ndef f(): ...\n")
        module = write(
            "server",
            "from sglang.more import router as more_router\n"
            "app.include_router(more_router)\n"
            "root = os.environ.get('ROOT')\n"
            "@app.get(root)\ndef f(): ...\n"
            "@app.post(os.environ.get('CHAT', '/chat'), dependencies=[1])\ndef g(): ...\n"
            "if True:\n    @app.api_route('/a/{b}', methods=['POST'])\n    def h(): ...\n"
            "app.add_api_route('/added', h)\n",
        )
        assert declared_routes(module) == {"/more", "/chat", "/a/{b}", "/added"}

    @pytest.mark.parametrize(
        "line", ["@app.get(PREFIX + '/x')\ndef f(): ...", "app.include_router(made())", "app.include_router(router)"]
    )
    def test_a_route_that_can_not_be_read_is_an_error(self, write, line):
        with pytest.raises(ValueError, match="can't be read"):
            declared_routes(write("server", f"{line}\n"))


@pytest.mark.sources
def test_each_name_that_the_package_imports_has_a_record():
    """A record that is missing would let a change through unseen."""
    symbols = [record.symbol.partition(":") for record in RECORDS]
    recorded = {f"{module}:{path.split('.')[0]}" for module, _, path in symbols}
    modules = {module for module, _, _ in symbols}
    importing = [file for file in (PACKAGE / "upstream").rglob("*.py") if "sglang" in file.read_text()]
    assert len(importing) > 4, "the folder has moved, and nothing would be tested"
    for file in importing:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sglang"):
                defined = {defined_at(node.module, alias.name) for alias in node.names}
                missing = defined - recorded - modules
                assert not missing, f"{file.name} imports {missing}: add records to patches/calls.py"


def defined_at(module: str, name: str) -> str:
    """`module:name` of where a name comes from that a module may only pass on; a module's own name for a module."""
    path = SOURCE / module.replace(".", "/")
    if (path / f"{name}.py").exists() or (path / name / "__init__.py").exists():
        return f"{module}.{name}"
    if read_definition(SOURCE, f"{module}:{name}")[0] is not None:
        return f"{module}:{name}"
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            return defined_at(node.module, name)
    raise AssertionError(f"{module} has no {name}")


def test_every_patch_file_is_installed_somewhere():
    installed = {patch.__name__.rpartition(".")[2] for of_stage in STAGES.values() for patch in of_stage}
    files = {file.stem for file in Path(patches.__file__).parent.glob("*.py") if not file.stem.startswith("_")}
    assert files - {"calls", "read_upstream"} == installed


MODULE = """
LIMIT: int = 3

class C:
    def f(self, a: int, b=1):
        self.x, y = a, 0
        self.y = b
        return a + b

    def g(self):
        LIMIT = 5
        self.y = LIMIT
"""


class TestDrift:
    """What a record says of a definition that changed."""

    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "pkg").mkdir()
        (tmp_path / "pkg" / "mod.py").write_text(MODULE)
        return tmp_path

    def record(self, source, **changes):
        signature, digest = read_definition(source, "pkg.mod:C.f")
        fields = dict(symbol="pkg.mod:C.f", signature=signature, checked={"1": digest}, why="of a reason", until="")
        return Upstream(**{**fields, **changes})

    def test_the_text_that_was_read_passes(self, source):
        record = self.record(source)
        assert record.signature == "(self, a, b=1)"
        record.check(Sources(source, "1"))

    def test_a_version_that_nobody_looked_at_is_drift_even_if_nothing_moved(self, source):
        record = self.record(source)
        with pytest.raises(UpstreamDrift, match="its text is the one of 1: add '2'"):
            record.check(Sources(source, "2"))

    @pytest.mark.parametrize("symbol", ["pkg.mod:LIMIT", "pkg.mod:C.y"])
    def test_an_attribute_has_a_record_too(self, source, symbol):
        """Of the first statement that sets it: what else changes is not its."""
        signature, digest = read_definition(source, symbol)
        record = Upstream(symbol, signature, {"1": digest}, "of a reason", "")
        assert signature == "attribute"
        file = source / "pkg" / "mod.py"
        text = file.read_text()
        for before, after, what in (
            ("return a + b", "return a - b", None),
            ("LIMIT = 5", "LIMIT = 6", None),
            ("LIMIT: int = 3" if "LIMIT" in symbol else "self.y = b", "pass", "new body|is gone"),
        ):
            other = source / "pkg" / f"mod{len(list(file.parent.iterdir()))}.py"
            other.write_text(text.replace(before, after))
            moved = Upstream(
                f"pkg.{other.stem}:{symbol.partition(':')[2]}", signature, record.checked, "of a reason", ""
            )
            if what is None:
                moved.check(Sources(source, "1"))
            else:
                with pytest.raises(UpstreamDrift, match=what):
                    moved.check(Sources(source, "1"))

    @pytest.mark.parametrize(
        ("before", "after", "what"),
        [
            ("a + b", "a - b", "same signature, new body"),
            ("b=1", "b=2", "signature changed"),
            ("def f", "def g", "the definition is gone"),
        ],
    )
    def test_a_change_is_graded(self, source, before, after, what):
        record = self.record(source)
        file = source / "pkg" / "mod2.py"
        file.write_text((source / "pkg" / "mod.py").read_text().replace(before, after))
        changed = Upstream("pkg.mod2:C.f", record.signature, record.checked, record.why, record.until)
        with pytest.raises(UpstreamDrift, match=f"pkg.mod2:C.f, recorded for pkg 1, in pkg 2: {what}"):
            changed.check(Sources(source, "2"))


def test_each_package_has_sources_and_releases_of_its_own(tmp_path):
    """Kills: a record about a package beside SGLang that is looked for in SGLang's folder, under SGLang's release."""
    folders = []
    for package, distribution, release in (("sglang", "sglang", "9.1"), ("sgl_kernel", "sglang_kernel", "2+cu130")):
        folder = tmp_path / package
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
        metadata = folder / f"{distribution}-{release}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {release}\n")
        folders.append(str(folder))
    program = (
        "import sys; from sgl_proxythinker.upstream.record import Sources\n"
        "for package in ('sglang', 'sgl_kernel'):\n"
        "    sources = Sources.installed(package)\n"
        "    sys.stdout.write(f'{sources.root} {sources.release}\\n')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, env=environment, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == [f"{folders[0]} 9.1", f"{folders[1]} 2"], run.stderr[-2000:]


def test_only_upstream_and_patches_import_sglang_at_their_top():
    """`grep sglang sgl_proxythinker/upstream` answers what this project depends on."""
    importers = set()
    files = [file for file in PACKAGE.rglob("*.py") if file.parent.name not in ("upstream", "patches")]
    assert len(files) > 80, "the folders have moved, and nothing would be tested"
    for file in files:
        for node in ast.parse(file.read_text()).body:
            modules = (
                [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
            )
            if isinstance(node, (ast.Import, ast.ImportFrom)) and any((m or "").startswith("sglang") for m in modules):
                importers.add(file.relative_to(PACKAGE).as_posix())
    reasons = {
        "frontend/engine.py": "a subclass of SGLang's",
        "launch/hooks.py": "the registry of hooks, which runs with the plugin",
    }
    assert importers == reasons.keys()


@pytest.mark.sources
class TestWorkaroundsAreStillNeeded:
    """When one of these fails, delete the workaround that it names."""

    def source_of(self, symbol):
        module, _, path = symbol.partition(":")
        text = (SOURCE / (module.replace(".", "/") + ".py")).read_text()
        node = ast.parse(text)
        for name in path.split("."):
            node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == name)
        return ast.get_source_segment(text, node)

    def test_custom_params_reach_the_sampler_only_with_a_logit_processor(self):
        """Worker reads them from the batch's requests."""
        source = self.source_of("sglang.srt.sampling.sampling_batch_info:SamplingBatchInfo.from_schedule_batch")
        assert "custom_params = None" in source

    def test_image_embeddings_are_cached_by_hash_for_the_process(self):
        """runners.HostedModel keeps a cache of its own."""
        source = self.source_of("sglang.srt.managers.mm_utils:init_mm_embedding_cache")
        assert "global embedding_cache" in source

    def test_input_ids_are_clamped_in_place(self):
        """runners.without_logprobs copies them."""
        assert "input_ids.clamp_(" in self.source_of("sglang.srt.managers.mm_utils:embed_mm_inputs")

    def test_graphs_share_one_logits_buffer(self):
        """runners.GraphBuffers gives each model its own."""
        source = self.source_of("sglang.srt.model_executor.graph_shared_output:GraphSharedOutput")
        assert "_process_shared" in source

    @of_what_is_imported
    def test_several_images_of_one_prompt_with_n_are_refused(self, sglang):
        """patches/generate_req_input_handle_parallel_sampling.py nests them."""
        io_struct = pytest.importorskip("sglang.srt.managers.io_struct")
        request = io_struct.GenerateReqInput(text="x", image_data=["a", "b"], sampling_params={"n": 2})
        handle = io_struct.GenerateReqInput._handle_parallel_sampling
        original = getattr(handle, "__wrapped__", handle)
        request._validate_inputs()
        request._determine_batch_size()
        original(request)
        with pytest.raises(ValueError, match="image_data should be equal to the batch size"):
            request._normalize_batch_inputs()
