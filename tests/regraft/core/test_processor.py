from regraft.core import processor
from regraft.core.processor import this_processor


def test_the_processor_is_named_with_what_it_has_for_int8(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPU_INFO", cpuinfo)
    found = this_processor()
    assert found.int8 is None
    assert "not known" in str(found)
    cpuinfo.write_text("processor : 0\nmodel name\t: A CPU: fast\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor : 1\n")
    found = this_processor()
    assert (found.name, found.int8) == ("A CPU: fast", ["avx512_vnni"])
    assert "int8 by avx512_vnni" in str(found)
    cpuinfo.write_text("model name : Old\nflags : fpu avx2\n")
    assert "no instructions for int8 (VNNI)" in str(this_processor())
