"""Which files were meant as images although they cannot be read: by their suffix, or by the first bytes of the content.

They are quarantined by name. Otherwise a folder of raw photos would count as a folder of other files, and a model would
be trained on the rest without a word.
"""

import re
from pathlib import PurePath
from typing import IO

START_BYTES = 1024  # of a file, that are looked at
_PLAIN = "an image"  # of a format that can be read: what has its suffix and cannot be read is damaged
_RAW = "a raw photo of a camera"
_CONVERT = "convert it to JPEG, PNG or TIFF"
_BY_SUFFIX = {
    _PLAIN: "jpg jpeg jpe jfif jif png apng gif bmp dib tif tiff webp jp2 j2k jpc jpf jpx j2c pgm ppm pbm pnm pfm pam "
    "mpo avif avifs",
    "a HEIC photo": "heic heif hif heics heifs",
    _RAW: "3fr ari arw cr2 cr3 crw dcr dcs dng eip erf fff gpr iiq k25 kdc "
    "mef mos mrw nef nrw orf pef ptx pxn raf raw rw2 rwl rwz sr2 srf srw x3f",
    "a JPEG XL image": "jxl",
    "a JPEG XR image": "jxr hdp wdp",
    "a Photoshop document": "psd psb",
    "a GIMP, Krita or OpenRaster document": "xcf kra ora",
    "an SVG drawing": "svg svgz",
    "a PostScript drawing": "eps epsf epsi ps ai",
    "a Windows metafile": "wmf emf",
    "a Targa image": "tga icb vda vst",
    "an OpenEXR image": "exr",
    "a Radiance HDR image": "hdr",
    "a PCX image": "pcx dcx",
    "an SGI image": "sgi rgb rgba bw",
    "an X11 bitmap": "xbm xpm xwd",
    "a Sun raster image": "ras sun",
    "a DirectDraw surface": "dds",
    "a Windows icon": "ico cur",
    "an Apple icon": "icns",
    "a FITS image": "fits fts",
    "a DICOM image": "dcm dicom",
    "a DjVu document": "djvu djv",
    "an image in a rare format": "bpg flif qoi ktx ktx2 msp blp pict pct pcd psp im palm spi spider",
}
_SUFFIXES = {f".{suffix}": what for what, suffixes in _BY_SUFFIX.items() for suffix in suffixes.split()}
_RAW_SUFFIXES = frozenset(suffix for suffix, what in _SUFFIXES.items() if what == _RAW)
# What the first bytes say, most telling first: AVIF names HEIC's brands too, and several raw formats begin like a TIFF.
_SIGNATURES = {
    _PLAIN: rb"....ftyp(....){0,30}?(avif|avis)",
    "a HEIC photo": rb"....ftyp(....){0,30}?(he[iv][cfxms]|mif[12]|msf1)",
    _RAW: rb"....ftypcrx |II\*\0....CR|II\x1a\0\0\0HEAPCCDR|FUJIFILMCCD-RAW|IIR[OS]\x08\0|MMOR|"
    rb"IIU\0|\0MRM|FOVb",
    "a JPEG XL image": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "a JPEG XR image": rb"II\xbc\x01",
    "a Photoshop document": rb"8BPS",
    "a GIMP, Krita or OpenRaster document": rb"gimp xcf",
    "an SVG drawing": rb"(\xef\xbb\xbf)?\s*(<svg\b|<(\?xml|!--|!DOCTYPE svg)(?!.*<html).*<svg\b)",
    "a PostScript drawing": rb"%!PS|\xc5\xd0\xd3\xc6",
    "a Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
    "an OpenEXR image": rb"v/1\x01",
    "a Radiance HDR image": rb"#\?(RADIANCE|RGBE)\n",
    "an SGI image": rb"\x01\xda[\0\x01][\x01\x02]",
    "an X11 bitmap": rb"#define\s+\S+_width\s|/\* XPM \*/",
    "a Sun raster image": rb"\x59\xa6\x6a\x95",
    "a DirectDraw surface": rb"DDS \x7c\0\0\0",
    "a Windows icon": rb"\0\0[\x01\x02]\0[\x01-\x7f]\0",
    "an Apple icon": rb"icns",
    "a FITS image": rb"SIMPLE  =",
    "a DICOM image": rb".{128}DICM",
    "a DjVu document": rb"AT&TFORM",
    "an image in a rare format": rb"BPG\xfb|FLIF|qoif|\xabKTX ",
}
_ALSO_PLAIN = (
    rb"\xff\xd8\xff|\x89PNG|GIF8|II[*+]\0|MM\0[*+]|BM....\0\0\0\0|RIFF....WEBP|\xff\x4f\xff\x51|"
    rb"\0\0\0\x0cjP  \r\n\x87\n"
)
_COMPILED = [(what, re.compile(start, re.DOTALL)) for what, start in [*_SIGNATURES.items(), (_PLAIN, _ALSO_PLAIN)]]


def judge(path: str, file: IO[bytes], *, format_name: str | None, problem: str | None) -> tuple[bool, str | None]:
    """Return whether a file was meant as an image, and why it cannot be used.

    Args:
        path: its name counts where the content says nothing.
        file: the content, from its beginning.
        format_name: what the decoder took it for; None for nothing.
        problem: what the decoder said; None if it could be decoded.
    """
    suffix = PurePath(path).suffix.lower()
    if format_name == "TIFF" and suffix in _RAW_SUFFIXES:
        # Most raw formats are TIFF files as well, in which a decoder finds a small preview.
        return True, f"{_RAW} of which only a preview can be read; {_CONVERT}"
    if problem is None or format_name is not None:
        return True, problem
    start = file.read(START_BYTES)
    by_content = next((what for what, signature in _COMPILED if signature.match(start)), None)
    meant = by_content or _SUFFIXES.get(suffix)
    if meant in (None, _PLAIN) or not start:
        return meant is not None, problem
    return True, f"{meant}, which cannot be read; {_CONVERT}"
