"""Which files are images: by content, by suffix, and all of them in a folder.

Content decides on the format when a file is read, because names are often wrong. Suffixes decide which files of a
folder are looked at, and on the format of a new file.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path, PurePath

from restore.errors import RestoreError, printable
from restore.files import not_found_message
from restore.packed import Packed

#: Suffix -> format, for all formats that can be read.
FORMAT_OF_SUFFIX = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".mpo": "jpeg",
    ".png": "png", ".apng": "png",
    ".tif": "tiff", ".tiff": "tiff",
    ".webp": "webp",
    ".gif": "gif",
    ".avif": "avif",
    ".heic": "heic", ".heif": "heic", ".hif": "heic",
    ".bmp": "bmp", ".dib": "bmp",
    ".tga": "tga",
    ".pcx": "pcx",
    ".ico": "ico",
    ".jp2": "jp2", ".j2k": "jp2", ".j2c": "jp2", ".jpc": "jp2", ".jpf": "jp2", ".jpx": "jp2", ".jph": "jp2",
    ".jxl": "jxl",
    ".psd": "psd", ".psb": "psd", ".pdd": "psd",
    ".pdf": "pdf",
    ".pbm": "ppm", ".pgm": "ppm", ".ppm": "ppm", ".pnm": "ppm",
    ".dpx": "dpx",
    ".sgi": "sgi", ".rgb": "sgi", ".rgba": "sgi", ".bw": "sgi",
}  # fmt: skip

#: Formats that are only read, and what they are.
READ_ONLY_FORMATS = {
    "jp2": "a JPEG 2000 file",
    "jxl": "a JPEG XL file",
    "psd": "a Photoshop file",
    "pdf": "a PDF document",
}

#: Formats that need an extra package, what its name is when imported, and what the extra and the format are called.
_EXTRAS = {"jxl": ("pillow_jxl", "jxl", "JPEG XL"), "pdf": ("pypdfium2", "pdf", "PDF")}

#: Suffixes of images that can be read.
IMAGE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX) - {".pdf"}  # documents are seldom images

#: Suffixes of camera raw files. Most are TIFFs of which libtiff would find only a small preview.
RAW_SUFFIXES = frozenset((
    ".3fr", ".arw", ".bay", ".cr2", ".cr3", ".crw", ".dcr", ".dcs", ".dng", ".eip", ".erf", ".fff", ".gpr", ".iiq",
    ".k25", ".kc2", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".pxn", ".qtk", ".raf", ".raw",
    ".rdc", ".rw2", ".rwl", ".rwz", ".sr2", ".srf", ".srw", ".x3f",
))  # fmt: skip

#: Other images that cannot be read, and their suffixes.
_UNREADABLE_KINDS = {
    "a JPEG 2000 document or movie": ".jpm .mj2",
    "a JPEG XR file": ".jxr .wdp .hdp",
    "a JPEG-LS file": ".jls",
    "a JBIG file": ".jbg .jbig .jb2 .jbig2",
    "a Photo CD file": ".pcd",
    "a PICT file": ".pct .pict .pic",
    "a GIMP file": ".xcf",
    "a drawing of another program": ".afphoto .clip .kra .ora .pdn .procreate .psp .pspimage .sai .sai2 .xpr",
    "an OpenEXR file": ".exr",
    "a Radiance HDR file": ".hdr .rgbe .xyze",
    "a portable float map": ".pfm .phm",
    "a portable arbitrary map": ".pam",
    "a Cineon file": ".cin",
    "a QOI file": ".qoi",
    "a FLIF file": ".flif",
    "a BPG file": ".bpg",
    "a Farbfeld file": ".farbfeld",
    "a texture": ".dds .ktx .ktx2 .pvr .vtf .astc .blp",
    "an Apple icon": ".icns",
    "a Windows cursor": ".cur .ani",
    "a FITS file": ".fits .fit .fts",
    "a DICOM file": ".dcm .dicom",
    "an SVG drawing": ".svg .svgz",
    "a PostScript file": ".eps .epsf .epsi .ps",
    "an Illustrator drawing": ".ai",
    "a CorelDRAW drawing": ".cdr",
    "a Windows metafile": ".wmf .emf .wmz .emz",
    "a PDF document": ".pdf",
    "a DjVu document": ".djvu .djv",
    "an XPS document": ".xps .oxps",
    "an X bitmap": ".xbm",
    "an X pixmap": ".xpm",
    "an X window dump": ".xwd",
    "a wireless bitmap": ".wbmp",
    "a Sun raster file": ".ras",
    "an Amiga file": ".iff .ilbm .lbm .ham .ham8",
    "a Microsoft Paint file": ".msp",
    "a MIFF file": ".miff",
    "a VIFF file": ".viff",
    "an MNG or JNG file": ".mng .jng",
    "a Pixar or RLA file": ".pxr .rla",
}  # fmt: skip
_KIND_OF_SUFFIX = dict.fromkeys(RAW_SUFFIXES, "a camera raw file") | {
    suffix: kind for kind, suffixes in _UNREADABLE_KINDS.items() for suffix in suffixes.split()
}

#: Suffixes of images that cannot be read: reported as failures instead of being ignored.
UNREADABLE_SUFFIXES = frozenset(_KIND_OF_SUFFIX)

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"\0\0\1\0", "ico"),
    (b"\x01\xda", "sgi"),
    (b"SDPX", "dpx"),
    (b"XPDS", "dpx"),
    (b"8BPS\0\1", "psd"),
    (b"8BPS\0\2", "psd"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"\xff\x0a", "jxl"),
    (b"%PDF", "pdf"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
)

_UNSUPPORTED: tuple[tuple[bytes, str], ...] = (
    (b"8BPS", "a Photoshop file"),
    (b"gimp xcf", "a GIMP file"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"DDS ", "a DirectDraw surface"),
    (b"icns", "an Apple icon"),
    (b"SIMPLE  =", "a FITS file"),
    (b"BLP1", "a Blizzard texture"),
    (b"BLP2", "a Blizzard texture"),
    (b"DanM", "a Microsoft Paint file"),
    (b"LinS", "a Microsoft Paint file"),
    (b"/* XPM */", "an X pixmap"),
    (b"#define", "an X bitmap"),
    (b"%!PS", "a PostScript file"),
    (b"FUJIFILMCCD-RAW", "a camera raw file"),
    (b"IIRO", "a camera raw file"),
    (b"IIRS", "a camera raw file"),
    (b"IIU\0", "a camera raw file"),
    (b"\0MRM", "a camera raw file"),
    (b"FOVb", "a camera raw file"),
    (b"AT&TFORM", "a DjVu document"),
    (b"II\x1a\0\0\0HEAPCCDR", "a camera raw file"),
    (b"II\xbc\x01", "a JPEG XR file"),
    (b"qoif", "a QOI file"),
    (b"PF\n", "a portable float map"),
    (b"Pf\n", "a portable float map"),
    (b"P7\nWIDTH", "a portable arbitrary map"),
    (b"\x80\x2a\x5f\xd7", "a Cineon file"),
    (b"FLIF", "a FLIF file"),
    (b"BPG\xfb", "a BPG file"),
    (b"farbfeld", "a Farbfeld file"),
    (b"PCD_OPA", "a Photo CD file"),
    (b"Paint Shop Pro Image File", "a drawing of another program"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"\x59\xa6\x6a\x95", "a Sun raster file"),
    (b"\x8aMNG\r\n", "an MNG or JNG file"),
    (b"\x8bJNG\r\n", "an MNG or JNG file"),
    (b"id=ImageMagick", "a MIFF file"),
    (b"\xabKTX ", "a texture"),
)

_NUMBER_OR_COMMENT = tuple(bytes([character]) for character in b"0123456789#")

_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class UnsupportedFile(RestoreError):
    """A file holds an image of a kind that cannot be read: it is not damaged."""


class NotAnImage(RestoreError):
    """The content of a file is in no known format, whatever its name says."""

    def __init__(
        self,
        what: str,
        *,
        where: str | os.PathLike[str] | None = None,
        hint: str | None = None,
        exit_code: int = 1,
    ) -> None:
        super().__init__(what, where=where, hint=hint, exit_code=exit_code)


def format_of(data: bytes, name: str | PurePath) -> str:
    """The format of a file's content: `jpeg png tiff webp gif avif heic bmp ico tga pcx ppm sgi dpx jp2 jxl psd
    pdf`.

    Args:
        data: the whole file, or at least its first 64 bytes.
        name: for messages, and for TGA, which has no signature.

    Raises:
        NotAnImage: the content is in no known format.
        UnsupportedFile: exit code 1: the content, or else the name, is of a known format that is not supported (camera
            raw, ...), or that needs an extra package.
    """
    if not data:
        raise NotAnImage("the file is empty", where=name)
    suffix = PurePath(name).suffix.lower()
    found = next((kind for start, kind in _SIGNATURES if data.startswith(start)), None) or _container_format(data)
    named_image = suffix in IMAGE_SUFFIXES
    if not named_image and not _header_is_plausible(found, data):  # a text may begin with "BM" too
        found = None
    if found == "tiff" and (suffix in RAW_SUFFIXES or data[8:10] == b"CR"):
        raise _unsupported("a camera raw file", name)
    if found == "jp2" and data[20:24] in (b"mjp2", b"jpm "):
        raise _unsupported("a JPEG 2000 document or movie", name)
    if found in _EXTRAS and find_spec(_EXTRAS[found][0]) is None:
        _, extra, title = _EXTRAS[found]
        advice = f"{title} needs an extra package: pip install 'restore-toolkit[{extra}]'"
        raise UnsupportedFile(f"this is {READ_ONLY_FORMATS[found]}", where=name, hint=advice, exit_code=1)
    if found is not None:
        return found
    plausible_ppm = named_image or data[3:64].lstrip().startswith(_NUMBER_OR_COMMENT)
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace() and plausible_ppm:
        return "ppm"
    if data[:1] == b"\x0a" and data[1:2] in (b"\0", b"\2", b"\3", b"\4", b"\5") and data[2:3] == b"\1":
        return "pcx"
    for start, kind in _UNSUPPORTED:
        if data.startswith(start):
            raise _unsupported(kind, name)
    if data[4:12] == b"ftypcrx ":
        raise _unsupported("a camera raw file", name)
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head):
        raise _unsupported("an SVG drawing", name)
    if suffix == ".tga" and len(data) >= 18 and data[1] in (0, 1) and data[2] in (1, 2, 3, 9, 10, 11):
        return "tga"
    if suffix in UNREADABLE_SUFFIXES:  # no signature, or an unknown one
        raise _unsupported(_KIND_OF_SUFFIX[suffix], name)
    raise NotAnImage("not an image", where=name)


def _header_is_plausible(found: str | None, data: bytes) -> bool:
    """Whether the bytes after a signature of two to four bytes can be that format's header."""
    if found == "bmp":  # the length of the second header
        return data[15:18] == b"\0\0\0" and 12 <= data[14] <= 124
    if found == "ico":  # the number of icons
        return data[4:6] != b"\0\0"
    if found == "sgi":  # compression, bytes per value
        return data[2:3] in (b"\0", b"\1") and data[3:4] in (b"\1", b"\2")
    return True


def _container_format(data: bytes) -> str | None:
    """The format of a RIFF file or of an ISO base media file, which name it after the length of the first box."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(data[:4], "big"), 256, len(data))
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, length - 3, 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "avif"
    return "heic" if any(brand in _HEIC_BRANDS for brand in brands) else None


def _unsupported(kind: str, name: str | PurePath) -> UnsupportedFile:
    return UnsupportedFile(
        f"this is {kind}, which is not supported", where=name, hint="convert it to TIFF or PNG first", exit_code=1
    )


# Folders

_HIDDEN_IMAGES = frozenset(suffix.encode() for suffix in IMAGE_SUFFIXES)

#: Folders that programs and systems make for themselves: thumbnails, deleted files, earlier versions.
SYSTEM_FOLDERS = frozenset((
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "__macosx",
))  # fmt: skip


def find_images(
    folder: str | os.PathLike[str],
    *,
    include: Collection[str] = (),
    exclude: Collection[str] = (),
    suffixes: Collection[str] = IMAGE_SUFFIXES,
    on_unlistable: Callable[[Path, OSError], object] | None = None,
    on_left_out: Callable[[Path], object] | None = None,
) -> list[Path]:
    """Find all images in a folder and its subfolders, by suffix.

    Hidden files and folders (their names begin with a dot) and `SYSTEM_FOLDERS` are left out. Links to folders are
    followed; every folder is visited once.

    Args:
        folder: where to search.
        include: globs; empty = everything. A glob without a slash is matched against the file name, one with a slash
            against the relative POSIX path (in which `*` also matches slashes). Case and Unicode normalization do not
            matter.
        exclude: globs of files to leave out, even if `include` matches them.
        suffixes: in lower case, with the dot.
        on_unlistable: called with the relative path of a subfolder that cannot be listed, and the reason, unless
            `exclude` matches everything in it; the search continues. None: that is an error.
        on_left_out: called with the relative path of every system folder, hidden folder and hidden image that is left
            out, unless `exclude` matches it.

    Returns:
        Paths relative to the folder, sorted by their bytes.

    Raises:
        RestoreError: the folder, or a subfolder, cannot be listed.
    """
    return [
        Path(name)
        for name, _ in walk_files(folder, exclude=exclude, on_unlistable=on_unlistable, on_left_out=on_left_out)
        if suffix_of(name).lower() in suffixes
        and (not include or matches(name, include))
        and not matches(name, exclude)
    ]


def walk_files(
    folder: str | os.PathLike[str],
    *,
    exclude: Collection[str] = (),
    on_unlistable: Callable[[Path, OSError], object] | None = None,
    on_left_out: Callable[[Path], object] | None = None,
) -> Iterator[tuple[str, bool]]:
    """Find all files in a folder and its subfolders, one after the other, but for those that `find_images` leaves out.

    Args:
        folder: where to search.
        exclude, on_unlistable, on_left_out: see `find_images`. Files that `exclude` matches are found all the same.

    Yields:
        The path relative to the folder, with slashes, in the order of its bytes; whether it is a link.

    Raises:
        RestoreError: as `find_images`.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RestoreError(not_found_message(root, "folder"), where=root)
    top = os.path.join(root, "")

    def fail(below: str, error: OSError) -> None:
        if on_unlistable is None or not below:
            raise RestoreError(unlistable_message(error), where=root / below, exit_code=1) from error
        if not matches(f"{below}/any", exclude):
            on_unlistable(Path(below), error)

    def leave_out(path: str) -> None:
        if on_left_out is not None and not matches(path, exclude) and not matches(f"{path}/any", exclude):
            on_left_out(Path(path))

    def is_new(below: str) -> bool:
        try:
            here = _identity(top + below)
        except FileNotFoundError:  # it was just removed
            return False
        except OSError as error:
            fail(below, error)
            return False
        if here in seen:
            return False
        seen.add(here)
        return True

    def names_in(below: str) -> Iterator[bytes]:
        """Names in the order of the paths: those of folders end in a slash, those of links in NUL."""
        names, folders, hidden = [], [], []
        try:
            with os.scandir(os.fsencode(top + below)) as listing:
                for entry in listing:
                    if _is_folder(entry):
                        folders.append(entry.name)
                    elif not entry.name.startswith(b"."):
                        names.append(entry.name + b"\0" if entry.is_symlink() else entry.name)
                    elif os.path.splitext(entry.name)[1].lower() in _HIDDEN_IMAGES:
                        hidden.append(entry.name)
        except OSError as error:
            fail(below.removesuffix("/"), error)
        for name in sorted(folders):
            text = os.fsdecode(name)
            if text.startswith(".") or text.lower() in SYSTEM_FOLDERS:
                leave_out(below + text)
            elif is_new(below + text):
                names.append(name + b"/")
        for name in hidden:
            leave_out(below + os.fsdecode(name))
        names.sort()
        return iter(Packed(names))

    # A link to the folder itself, or to a folder that it lies in, would lead in circles.
    seen = {_identity(top)}
    for folder in root.resolve().parents:
        with suppress(OSError):  # a parent folder may be closed to this user
            seen.add(_identity(str(folder)))
    open_folders = [("", names_in(""))]
    while open_folders:
        below, names = open_folders[-1]
        for name in names:
            path = below + os.fsdecode(name)
            if name.endswith(b"/"):
                open_folders.append((path, names_in(path)))
                break
            yield path.rstrip("\0"), name.endswith(b"\0")
        else:
            open_folders.pop()


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def unlistable_message(error: OSError) -> str:
    """Why a folder cannot be listed, in words for the user."""
    return f"the folder cannot be listed: {error.strerror}"


def left_out_lines(paths: Iterable[Path], *, hint: str) -> list[str]:
    """What `find_images` leaves out without being asked to, in at most one line.

    Args:
        paths: what its `on_left_out` got.
        hint: how to get at them.
    """
    counts = Counter("._*" if path.name.startswith("._") else printable(path.name) for path in paths)
    if not counts:
        return []
    named = [f"{name} ({count} times)" if count > 1 else name for name, count in counts.most_common(5)]
    more = f" and {len(counts) - len(named)} more" if len(counts) > len(named) else ""
    return [f"left out, as hidden or made by a system: {', '.join(named)}{more}; {hint}"]


def left_out_of(folders: Iterable[Path | None], *, hint: str) -> list[str]:
    """What `find_images` leaves out of folders without being asked to, in at most one line.

    Args:
        folders: those that are searched; files and None are skipped.
        hint: as for `left_out_lines`.
    """
    left_out: list[Path] = []
    for folder in folders:
        if folder is not None and folder.is_dir():
            find_images(folder, on_left_out=left_out.append)
    return left_out_lines(left_out, hint=hint)


def composed(name: str) -> str:
    """One spelling of accented letters (NFC): macOS stores é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def suffix_of(name: str) -> str:
    """As `PurePath.suffix`, of a name or a path with slashes."""
    name = name[max(name.rfind("/"), name.rfind(os.sep)) + 1 :]
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""


def stem_key(relative: str | PurePath) -> str:
    """The POSIX path without the last suffix: what an image has in common with its mask or its reference."""
    return PurePath(relative).with_suffix("").as_posix()


def pair_key(relative: str | PurePath) -> str:
    """As `stem_key`, in one spelling of accented letters: the key that pairs images of two folders."""
    return composed(stem_key(relative))


def index_by_stem(folder: Path, images: Iterable[Path]) -> dict[str, Path]:
    """Index images of a folder by `pair_key`: key -> path relative to the folder.

    Raises:
        RestoreError: exit code 2; two images have the same key.
    """
    index: dict[str, Path] = {}
    for relative in images:
        other = index.setdefault(pair_key(relative), relative)
        if other != relative:
            raise RestoreError(
                f"has the same name as {other.name} except for the suffix", where=folder / relative, hint="rename one"
            )
    return index


def matches(path: str | PurePath, globs: Collection[str]) -> bool:
    """Whether any glob matches a relative path, in any case of letters: cameras write `A.JPG`."""
    if not globs:
        return False
    whole = path if isinstance(path, str) else path.as_posix()
    name = whole.rpartition("/")[2]
    return any(fnmatchcase(_folded(whole if "/" in glob else name), _folded(glob)) for glob in globs)


def _folded(name: str) -> str:
    return composed(composed(name).casefold())
