"""A process that runs one file in one engine and says what it took; `regraft.export.latency` starts it.

It is given one JSON argument, and prints two lines of JSON: one as soon as it has answered the first photo, one at the
end. Nothing is imported before it is needed, since that counts as cold start.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (n, height, width, 3) to float32 (n, num_classes)


def main() -> None:
    """The command line."""
    job = json.loads(sys.argv[1])
    answer = _ENGINES[job["engine"]](job)
    import numpy as np

    photos = np.load(job["photos"])
    one = photos["timed"][None]
    answer(one)
    print(json.dumps({"has_answered": True}), flush=True)
    for _ in range(job["warm_up"]):
        answer(one)
    seconds = _timed(answer, one, job["repeats"])
    batch = np.repeat(one, job["batch"], axis=0)
    # The first batch warms up.
    batch_seconds = _timed(answer, batch, job["batch_repeats"] + 1)[1:] if job["batch"] else []
    took = {"seconds": seconds, "batch_seconds": batch_seconds, "peak_bytes": _peak_bytes()}
    names = [name for name in photos.files if name.startswith("compared")] if job["compare"] else []
    probabilities = [answer(photos[name][None])[0].tolist() for name in names]
    version = getattr(sys.modules[job["engine"]], "__version__", "")
    print(json.dumps({**took, "probabilities": probabilities, "version": version}), flush=True)


def _timed(answer: "Answer", photos: "np.ndarray", repeats: int) -> list[float]:
    """Return the seconds of each call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer(photos)
        seconds.append(time.perf_counter() - start)
    return seconds


def _onnxruntime(job: dict[str, Any]) -> "Answer":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = onnxruntime.InferenceSession(job["file"], options, providers=["CPUExecutionProvider"])
    return lambda photos: session.run(["probabilities"], {"image": photos})[0]


def _openvino(job: dict[str, Any]) -> "Answer":
    import openvino  # pyright: ignore[reportMissingImports] - an option of whoever measures

    # Where the processor has bfloat16, OpenVINO would compute in it, and a probability be off by several points.
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    settings["INFERENCE_NUM_THREADS"] = job["threads"]
    compiled = openvino.Core().compile_model(job["file"], "CPU", settings)
    return lambda photos: compiled({"image": photos})["probabilities"]


def _keras(job: dict[str, Any]) -> "Answer":
    """As the network is used in Keras: each photo is prepared by the graph it was trained with, then one call."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras
    import numpy as np

    from regraft.photos.images import Threads
    from regraft.photos.preparation import Preparation

    model = keras.saving.load_model(job["file"], compile=False, safe_mode=True)
    preparation, threads = Preparation(job["image_size"], job["crop_fraction"]), Threads(job["threads"])

    def answer(photos: "np.ndarray") -> "np.ndarray":
        prepared = [preparation(photos[0])] if len(photos) == 1 else list(threads.map(preparation, photos))
        return model.predict_on_batch(np.stack(prepared).astype(np.float32))

    return answer


_ENGINES: dict[str, Callable[[dict[str, Any]], "Answer"]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "keras": _keras,
}


def _peak_bytes() -> int:
    """Return the most memory that this process has had at once."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - as light as it can be
            # The other figure that Linux has, ru_maxrss, is never below that of the process that started this one.
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
