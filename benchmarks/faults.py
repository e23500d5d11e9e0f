import sys, tempfile, time
from pathlib import Path
from benchmarks.stage_processes import *
from benchmarks.kills import *
from regraft.demo_data import write_digits

if __name__ == "__main__":
    raw = Path("/tmp/w/fkraw")
    t = time.perf_counter()
    ds = choose_images(raw, 300)
    make = project_maker(raw, ds, ["backbone.weights=null", "backbone.image_size=64", "cache_features.views=1"])
    with tempfile.TemporaryDirectory() as d:
        src, ref = undisturbed(make, Path(d, "a"))
        print(time.perf_counter() - t, ref.total, ref.seconds, ref.seconds_full, src.receipt)
        t = time.perf_counter()
        print(
            Rounds(make, Path(d, "b"), src, ref, seed=1).run(int(sys.argv[1]), on_kill=print), time.perf_counter() - t
        )
