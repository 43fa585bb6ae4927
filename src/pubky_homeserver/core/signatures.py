"""What a file is by its first bytes: the table of signatures, in the order in which they are tried.

The first that fits wins, and the order and every oddity are those of the crate infer 0.22.0, which the reference
homeserver asks; `tests/core/media_cases.json` holds its answers. Some oddities are worth knowing: text that begins
with `BC`, `BM` or `MZ` is "bitcode", a bitmap or a program; `%PDF` counts anywhere in the first 1,024 bytes; and
"OOXML" means that the third and fourth files of the archive lie in the right folder.

Nearly all bodies are text or JSON, so the signatures are sorted by the first byte they can begin with, and those
that do not stand at the beginning are left out if one regular expression finds none of them: a body that begins
with `{` is held against four.
"""

import re
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple
from uuid import UUID

_PE = "application/vnd.microsoft.portable-executable"
_OFFICE = "application/vnd.openxmlformats-officedocument."
_OPEN_DOCUMENT = "application/vnd.oasis.opendocument."
_SFNT = "application/font-sfnt"
_WOFF = "application/font-woff"


class Signature(NamedTuple):
    """Bytes at a place, and perhaps more, that make a content type. A tuple, for `sniff` takes many apart."""

    content_type: str
    magic: bytes
    offset: int = 0
    least: int = 0
    """Bytes that a body must have in all, where that is more than where the magic ends."""
    also: Callable[[bytes], object] | None = None
    """A further condition on the body, asked if all else fits."""


def sniff(head: bytes) -> str | None:
    """The content type of a body by its beginning; None if it tells nothing."""
    if not head:
        return None
    candidates = _ALL if _FLOATING.match(head) else _LEADING
    for content_type, magic, offset, least, also in candidates[head[0]]:
        if head.startswith(magic, offset) and len(head) >= least and (also is None or also(head)):
            return content_type
    return None


def _like(pattern: bytes) -> Callable[[bytes], object]:
    """The condition that a body begins like a regular expression, in which the dot is any byte."""
    return re.compile(pattern, re.DOTALL).match


# --- containers ---------------------------------------------------------------------------------------------------


def _brands(head: bytes) -> list[bytes]:
    """The brands in the first box of an ISO media file (ISO/IEC 14496-12, `ftyp`), the major one first."""
    length = int.from_bytes(head[:4], "big")
    if not 16 <= len(head) >= length:
        return []
    end = min(length // 4 * 4, len(head) // 4 * 4)
    return [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]


def _is_heif(head: bytes) -> bool:
    major, *compatible = _brands(head) or [b""]
    return major in {b"heic", b"heix"} or (major in {b"mif1", b"msf1"} and b"heic" in compatible)


def _is_avif(head: bytes) -> bool:
    return not {b"avif", b"avis"}.isdisjoint(_brands(head))


def _office_folder(head: bytes, at: int) -> bytes:
    """Which application's folder a name in a ZIP archive begins with; empty for none."""
    return next((folder for folder in (b"word/", b"ppt/", b"xl/") if head.startswith(folder, at)), b"")


def _office_document(head: bytes) -> bytes:
    """The folder that makes an OOXML archive a text, a sheet or a presentation; empty if it is none.

    Either the first file lies in it, or the first is one of the package's own and the third and the fourth lie in such
    folders; the fourth decides.
    """
    name = 30  # bytes of a ZIP file's local header, before its name
    if folder := _office_folder(head, name):
        return folder
    if not head.startswith((b"[Content_Types].xml", b"_rels/.rels", b"docProps"), name):
        return b""
    size = int.from_bytes(head[18:22], "little")
    second = _next_name(head, size + 49)
    third = _next_name(head, second)
    if not _office_folder(head, third):
        return b""
    return _office_folder(head, _next_name(head, third + 26))


def _is_office(folder: bytes) -> Callable[[bytes], bool]:
    """The condition that an archive is an OOXML document of the application with this folder."""
    return lambda head: _office_document(head) == folder


def _next_name(head: bytes, start: int) -> int:
    """Where the next file's name in a ZIP archive begins, up to 6,000 bytes on; past the end if nowhere."""
    found = head.find(b"PK\x03\x04", start, start + 6000)
    return found + 30 if found >= 0 else len(head)


def _after_skippable(head: bytes) -> int:
    """Where the first real frame of an LZ4 or Zstandard stream begins (RFC 8878, skippable frames)."""
    at = 0
    while head.startswith(b"*M\x18", at + 1) and head[at] & 0xF0 == 0x50:
        following = at + 8 + int.from_bytes(head[at + 4 : at + 8], "little")
        if following > len(head):
            break
        at = following
    return at


def _skips_to(magic: bytes) -> Callable[[bytes], bool]:
    """The condition that a stream's first real frame begins so."""
    return lambda head: head.startswith(magic, _after_skippable(head))


_SECTOR = 512  # bytes, in a compound file of version 3; a sector of version 4 is as long as all that is looked at
_LAST_SECTOR, _FAT_SECTOR, _END_OF_CHAIN, _FREE = 0xFFFFFFFA, 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF
_PADDING = {0, 0xFFFFFFFC, _FAT_SECTOR, _FREE}  # what is found in the table beyond the last sector


def _root_class(head: bytes) -> bytes:
    """The class of an OLE compound file's root, 16 bytes; empty unless the whole file is here and its tables are sound.

    The file is a small disk (MS-CFB): sectors, a table (FAT) that chains them, and a directory whose first entry is the
    root. Real documents are longer than what is looked at, so few are told apart. Not looked at, unlike in the
    reference: the directory's other entries, the table of small sectors, and tables that go on beyond the header.
    """
    if len(head) < _SECTOR or struct.unpack_from("<26x4H22xI", head) != (3, 0xFFFE, 9, 6, 4096):
        return b""
    directory, small, more = struct.unpack_from("<48xI8xI4xI", head)
    table = _sector_table(head) if more in {_END_OF_CHAIN, _FREE} else []
    root = (directory + 1) * _SECTOR
    if directory == _END_OF_CHAIN or not _is_chain(head, table, directory) or not _is_chain(head, table, small):
        return b""
    if head[root + 66] != 5 or head[root + 67] > 1 or head[root + 120] % 64:
        return b""
    return head[root + 80 : root + 96]


def _is_chain(head: bytes, table: list[int], first: int) -> bool:
    """Whether the sectors from `first` on are all here and lead to an end."""
    seen: set[int] = set()
    while first != _END_OF_CHAIN:
        if first >= len(table) or first in seen or (first + 2) * _SECTOR > len(head):
            return False
        seen.add(first)
        first = table[first]
    return True


def _sector_table(head: bytes) -> list[int]:
    """Which sector follows which in a compound file; empty if that contradicts itself or speaks of sectors to come."""
    count = (len(head) - 1) // _SECTOR
    table: list[int] = []
    places: list[int] = []
    for (place,) in struct.iter_unpack("<I", head[76:_SECTOR]):
        if place == _FREE:
            break
        if (place + 2) * _SECTOR > len(head):
            return []
        places.append(place)
        table += struct.unpack_from(f"<{_SECTOR // 4}I", head, (place + 1) * _SECTOR)
    while len(table) > count and table[-1] in _PADDING:
        table.pop()
    if len(table) > count:
        return []
    table += [_FREE] * (count - len(table))
    for place in places:
        table[place] = _FAT_SECTOR
    followed = [sector for sector in table if sector <= _LAST_SECTOR]
    sound = len(set(followed)) == len(followed) and all(sector < count for sector in followed)
    return table if sound and _LAST_SECTOR + 1 not in table else []


def _is_class(*classes: str) -> Callable[[bytes], bool]:
    """The condition that a compound file's root is of one of these classes."""
    wanted = {UUID(text).bytes_le for text in classes}
    return lambda head: _root_class(head) in wanted


# --- the table ----------------------------------------------------------------------------------------------------

_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_EBML = b"\x1aE\xdf\xa3"
_TIFF = (b"II*\0", b"MM\0*")
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_LZ4 = b"\x04\x22\x4d\x18"
_AUTOCAD = b"1.2\0 1.3\0 1.40 1.50 2.10 2.21 2.22 1001 1002 1003 1004 1006 1009".split(b" ") + (
    b"1012 1013 1014 1015 1018 1021 1024 1027 1032 1035".split(b" ")
)
_MP4 = rb".{8}(?:avc1|dash|iso[2-6m]|mmp4|mp4[12v]|mp71|MSNV|NDAS|NSDC|NDS[CHMPS]|NDX[CHMPS]|F4[VP] )"
_HTML = (
    rb"(?i:[\t\n\f\r ]*+<(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|BODY|BR|B|P|!--)[ >])"
)
_XML = rb"(?i:[\t\n\f\r ]*+(?:\xef\xbb\xbf|\xfe\xff|\xff\xfe)*+<\?xml)"

_S = Signature
_SIGNATURES = (
    # Programs
    _S("application/wasm", b"\0asm\1\0\0\0"),
    _S("application/x-executable", b"\x7fELF", least=53),
    _S(_PE, b"MZ"),
    _S("application/java", b"\xca\xfe\xba\xbe", also=_like(rb".{6}(?:[^\0].|\0[\x2d-\xff])")),  # version 45 on
    _S("application/x-llvm", b"BC"),
    _S("application/x-mach-binary", b"\xcf\xfa\xed\xfe"),
    _S("application/x-mach-binary", b"\xce\xfa\xed\xfe"),
    _S("application/x-mach-binary", b"\xfe\xed\xfa\xcf"),
    _S("application/x-mach-binary", b"\xfe\xed\xfa\xce"),
    _S("application/x-mach-binary", b"\xca\xfe\xba\xbe\0\0\0", also=_like(rb".{7}[\0-\x2c]")),  # below 45 parts
    _S("application/vnd.android.dex", b"dex\n", also=_like(rb".{36}p")),
    _S("application/vnd.android.dey", b"dey\n", least=101, also=_like(rb".{40}dex\n.{32}p")),
    _S("application/x-x509-ca-cert", b"0\x82", least=3),
    _S("application/x-executable", b"d\x86", least=3),
    _S("application/x-executable", b"L\x01", least=3),
    _S("application/x-executable", b"\0\x02", least=3),
    _S("application/x-x509-ca-cert", b"-----BEGIN ", least=12),
    _S("application/x-qemu-disk", b"QFI\xfb", least=5),
    # Books
    _S("application/epub+zip", _ZIP, also=_like(rb".{30}mimetypeapplication/epub\+zip")),
    _S("application/x-mobipocket-ebook", b"BOOKMOBI", 60),
    # Images
    _S("image/jpeg", b"\xff\xd8\xff"),
    _S("image/jp2", b"\0\0\0\x0cjP  \r\n\x87\n\0"),
    _S("image/png", b"\x89PNG"),
    _S("image/gif", b"GIF"),
    _S("image/webp", b"WEBP", 8),
    *(_S("image/x-canon-cr2", magic, also=_like(rb".{8}CR\x02")) for magic in _TIFF),
    *(_S("image/tiff", magic, also=_like(rb".{8}[^C][^R]")) for magic in _TIFF),
    _S("image/bmp", b"BM"),
    _S("image/vnd.ms-photo", b"II\xbc"),
    _S("image/vnd.adobe.photoshop", b"8BPS"),
    _S("image/vnd.microsoft.icon", b"\0\0\1\0"),
    _S("image/heif", b"ftyp", 4, also=_is_heif),
    _S("image/avif", b"ftyp", 4, also=_is_avif),
    _S("image/jxl", b"\xff\n", least=3),
    _S("image/jxl", b"\0\0\0\x0cJXL \r\n\x87\n", least=13),
    _S("image/openraster", _ZIP, least=58, also=_like(rb".{30}mimetypeimage/openraster")),
    _S("image/vnd.djvu", b"AT&TFORM", also=_like(rb".{12}DJV")),
    _S("image/vnd.dwg", b"MC0.0\0"),
    *(_S("image/vnd.dwg", b"AC" + version) for version in _AUTOCAD),
    # Video
    _S("video/mp4", b"ftyp", 4, also=_like(_MP4)),
    _S("video/x-m4v", b"ftypM4V", 4),
    _S("video/x-matroska", _EBML, least=257, also=_like(rb".{4,245}?B\x82\x88matroska")),
    _S("video/webm", _EBML, least=257, also=_like(rb".{4,249}?B\x82\x84webm")),
    _S("video/quicktime", b"ftypqt  ", 4, least=16),
    _S("video/quicktime", b"moov", 4, least=16),
    _S("video/quicktime", b"mdat", 4, least=16),
    _S("video/quicktime", b"mdat", 12),
    _S("video/x-msvideo", b"RIFF", also=_like(rb".{8}AVI")),
    _S("video/x-ms-wmv", b"0&\xb2u\x8ef\xcf\x11\xa6\xd9"),
    _S("video/mpeg", b"\0\0\1", also=_like(rb".{3}[\xb0-\xbf]")),
    _S("video/x-flv", b"FLV\1"),
    # Audio
    _S("audio/midi", b"MThd"),
    _S("audio/mpeg", b"ID3"),
    _S("audio/mpeg", b"\xff", least=3, also=_like(rb".[\xf2\xf3\xfb]")),
    _S("audio/m4a", b"ftypM4A", 4),
    _S("audio/m4a", b"M4A ", least=11),
    _S("audio/opus", b"OggS", also=_like(rb".{28}OpusHead")),
    _S("audio/ogg", b"OggS"),
    _S("audio/x-flac", b"fLaC"),
    _S("audio/x-wav", b"RIFF", also=_like(rb".{8}WAVE")),
    _S("audio/amr", b"#!AMR\n", least=12),
    _S("audio/aac", b"\xff", also=_like(rb".[\xf1\xf9]")),
    _S("audio/x-aiff", b"FORM", also=_like(rb".{8}AIFF")),
    _S("audio/x-dsf", b"DSD ", least=5),
    _S("audio/x-ape", b"MAC ", least=5),
    # Fonts
    _S(_WOFF, b"wOFF\0\1\0\0"),
    _S(_WOFF, b"wOF2\0\1\0\0"),
    _S(_SFNT, b"\0\1\0\0\0"),
    _S(_SFNT, b"OTTO\0"),
    # Documents
    _S("application/msword", _OLE, also=_is_class("00020906-0000-0000-c000-000000000046")),
    _S(_OFFICE + "wordprocessingml.document", _ZIP, also=_is_office(b"word/")),
    _S(
        "application/vnd.ms-excel",
        _OLE,
        also=_is_class("00020810-0000-0000-c000-000000000046", "00020820-0000-0000-c000-000000000046"),
    ),
    _S(_OFFICE + "spreadsheetml.sheet", _ZIP, also=_is_office(b"xl/")),
    _S("application/vnd.ms-powerpoint", _OLE, also=_is_class("64818d10-4f9b-11cf-86ea-00aa00b929e8")),
    _S(_OFFICE + "presentationml.presentation", _ZIP, also=_is_office(b"ppt/")),
    _S(_OPEN_DOCUMENT + "text", _ZIP, also=_like(rb".{30}mimetype.{12}vnd\.oasis\.opendocument\.text")),
    _S(_OPEN_DOCUMENT + "spreadsheet", _ZIP, also=_like(rb".{30}mimetype.{12}vnd\.oasis\.opendocument\.spreadsheet")),
    _S(_OPEN_DOCUMENT + "presentation", _ZIP, also=_like(rb".{30}mimetype.{12}vnd\.oasis\.opendocument\.presentation")),
    # Archives, and what else was put there
    *(_S("application/zip", magic) for magic in (_ZIP, b"PK\5\6", b"PK\7\x08", b"PK00PK\3\4")),
    _S("application/x-tar", b"ustar", 257),
    _S("application/x-par2", b"PAR2\0PKT", least=9),
    _S("application/vnd.rar", b"Rar!\x1a\7\0"),
    _S("application/vnd.rar", b"Rar!\x1a\7\1"),
    _S("application/gzip", b"\x1f\x8b\x08"),
    _S("application/x-bzip2", b"BZh"),
    _S("application/vnd.bzip3", b"BZ3v1"),
    _S("application/x-7z-compressed", b"7z\xbc\xaf\x27\x1c"),
    _S("application/x-xz", b"\xfd7zXZ\0"),
    _S("application/pdf", b"", also=lambda head: head.find(b"%PDF", 0, 1024) >= 0),
    _S("application/x-shockwave-flash", b"CWS"),
    _S("application/x-shockwave-flash", b"FWS"),
    _S("application/rtf", b"{\\rtf"),
    _S("application/octet-stream", b"LP", 34, also=_like(rb".{8}(?:\x02\0[\x01\x02]|\x01\0\0)")),  # embedded OpenType
    _S("application/postscript", b"%!"),
    _S("application/vnd.sqlite3", b"SQLi"),
    _S("application/x-nintendo-nes-rom", b"NES\x1a"),
    _S("application/x-google-chrome-extension", b"Cr24"),
    _S("application/vnd.ms-cab-compressed", b"MSCF"),
    _S("application/vnd.ms-cab-compressed", b"ISc("),
    _S("application/vnd.debian.binary-package", b"!<arch>\ndebian-binary"),
    _S("application/x-unix-archive", b"!<arch>"),
    _S("application/x-compress", b"\x1f\xa0"),
    _S("application/x-compress", b"\x1f\x9d"),
    _S("application/x-lzip", b"LZIP"),
    _S("application/x-rpm", b"\xed\xab\xee\xdb", least=97),
    _S("application/dicom", b"DICM", 128),
    _S("application/zstd", _ZSTANDARD),
    _S("application/zstd", b"*M\x18", 1, also=_skips_to(_ZSTANDARD)),
    _S("application/x-lz4", _LZ4),
    _S("application/x-lz4", b"*M\x18", 1, also=_skips_to(_LZ4)),
    _S("application/x-ole-storage", _OLE),
    _S("application/x-cpio", b"\xc7q"),
    _S("application/x-cpio", b"q\xc7"),
    _S("application/x-cpio", b"070701", least=7),
    # Text
    _S("text/html", b"", also=_like(_HTML)),
    _S("text/xml", b"", also=_like(_XML)),
    _S("text/x-shellscript", b"#!", least=3),
)


def _by_first_byte(signatures: Iterable[Signature]) -> tuple[tuple[Signature, ...], ...]:
    """For each first byte the signatures that such a body can have, in order."""
    kept = tuple(signatures)
    return tuple(
        tuple(one for one in kept if one.offset or one.magic[:1] in {b"", bytes([first])}) for first in range(256)
    )


_ALL = _by_first_byte(_SIGNATURES)
_LEADING = _by_first_byte(one for one in _SIGNATURES if not one.offset)
_FLOATING = re.compile(
    b"|".join(sorted({b".{%d}%s" % (one.offset, re.escape(one.magic)) for one in _SIGNATURES if one.offset})),
    re.DOTALL,
)
"""Whether any magic that does not stand at the beginning stands where it should. Nearly never."""
