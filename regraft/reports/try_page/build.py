"""Put a model and ONNX Runtime Web into one HTML file."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from regraft.core.errors import RegraftError, safe_text
from regraft.core.files import readable_bytes, write_text
from regraft.export.activation_maps import MAPS, crop_fraction_of, with_maps
from regraft.onnx_graphs.parsing import parse_graph
from regraft.reports.try_page.runtime import LICENCE, PACKAGE, WebRuntime
from regraft.serving.shipped_model import ShippedModel
from regraft.serving.thresholds import one_in

_HERE = Path(__file__).parent
_SCRIPTS = ("decode.js", "unusual.js", "model.js", "cards.js", "view.js")
_EXPORT = re.compile(r"export\s*\{([^{}]*)\};?(?=\s*(//[^\n]*\s*)?$)")


def write_try_page(path: Path, model: Path, runtime: WebRuntime) -> None:
    """Write a page that classifies photos in a browser, without a network: the same bytes for the same model.

    Args:
        path: of the HTML file.
        model: a model.onnx, of this version of Regraft or an earlier one.
        runtime: from `load_runtime`.

    Raises:
        RegraftError: the model is none that Regraft exported, or the file cannot be written.
    """
    shipped = ShippedModel(model)
    graph = parse_graph(shipped.contents)
    more = with_maps(graph)
    contents = (more or graph).SerializeToString(deterministic=True)
    outputs = ["probabilities", *(["novelty"] if shipped.has_novelty else []), *([MAPS] if more else [])]
    write_text(path, _page(_facts(shipped, model, outputs), contents, runtime))


def _page(facts: dict[str, Any], model: bytes, runtime: WebRuntime) -> str:
    style = _asset("page.css")
    library = _as_global(runtime.library)
    script = "\n".join(map(_asset, _SCRIPTS))
    parts = {
        # Nothing is loaded, and nothing runs but these very scripts, whatever a name may smuggle in.
        "policy": (
            f"default-src 'none'; script-src {_digest(library)} {_digest(script)} 'wasm-unsafe-eval'; "
            f"style-src {_digest(style)}; connect-src 'none'; base-uri 'none'; form-action 'none'"
        ),
        "style": style,
        # JSON in which no `</script>` and no `<!--` can stand.
        "facts": json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c"),
        "wasm": _packed(runtime.wasm),
        "model": _packed(model),
        "library": library,
        "script": script,
    }
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], _asset("page.html"))


def _facts(shipped: ShippedModel, model: Path, outputs: list[str]) -> dict[str, Any]:
    """What the scripts have to know; names from outside are text there."""
    about = _about(shipped, model, has_maps=MAPS in outputs)
    return {
        "classes": list(map(safe_text, shipped.class_names)),
        "abstainBelow": shipped.promise and shipped.promise.abstain_below,
        "novelAbove": shipped.novel_above,
        "cropFraction": crop_fraction_of(shipped.metadata),
        "outputs": outputs,
        "about": [(term, safe_text(text)) for term, text in about.items()],
    }


def _about(shipped: ShippedModel, model: Path, *, has_maps: bool) -> dict[str, str]:
    facts = shipped.metadata
    unsure = f"never: {shipped.promise or shipped.no_promise or 'the file says nothing of it'}"
    if shipped.promise and shipped.promise.abstain_below:
        unsure = f"below {shipped.promise.abstain_below:.1%}. {str(shipped.promise).capitalize()}"
    novel = "the file has no output for it"
    if shipped.has_novelty and shipped.novel_above is not None:
        novel = f"above a novelty of {shipped.novel_above:.3f}"
        novel += f", as {one_in(shipped.novel_share)} ordinary photos by chance" if shipped.novel_share else ""
    looked = "not known: its head has a hidden layer, or no pooling comes before it"
    if has_maps:
        looked = "class activation maps: the mean of one is the logit of its class, but for the bias"
    return {
        "File": f"{model.name}, {readable_bytes(len(shipped.contents))}",
        "SHA-256": shipped.digest,
        "Classes": ", ".join(shipped.class_names),
        "Backbone": facts.get("backbone", "not said"),
        "Precision": facts.get("frozen_part", "not said"),
        "Temperature": facts.get("temperature", "not said: probabilities are not calibrated"),
        "Unsure": unsure,
        "Unlike its photos": novel,
        "Where it looked": looked,
        "Made by": f"Regraft {facts.get('regraft_version', 'of an earlier version')}",
        "Runs on": f"{PACKAGE} ({LICENCE}), one thread",
    }


def _as_global(module: str) -> str:
    """Return a module that names what it exports `ort` instead: a page on disk may import nothing."""
    exported = _EXPORT.search(module)
    if not exported or "</script" in module:
        raise RegraftError(f"{PACKAGE} is not what the page expects: one module that ends in its exports.")
    pairs = (part.split(" as ") for part in exported[1].split(","))
    names = ", ".join(f"{pair[-1].strip()}: {pair[0].strip()}" for pair in pairs)
    # It asks where it was loaded from, and Firefox gives files on disk no origin that it could work with.
    module = module[: exported.start()].replace("import.meta.url", '"https://page.invalid/"')
    return f"{module}globalThis.ort = {{ {names} }};\n"


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _packed(contents: bytes) -> str:
    return base64.b64encode(gzip.compress(contents, 6, mtime=0)).decode()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
