"""Small colour profiles (ICC version 2), written by hand."""

import struct

#: sRGB's primaries, adapted to D50: X, Y, Z of red, green, blue.
RED, GREEN, BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)


def _profile(kind, space, pcs, tags):
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, kind, space, pcs)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return header + bytes(128 - len(header)) + table + body


def _xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))


def _gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def rgb(red=RED, green=GREEN, blue=BLUE, gamma=2.2):
    """A profile of three primaries and one gamma."""
    tags = {b"rXYZ": _xyz(red), b"gXYZ": _xyz(green), b"bXYZ": _xyz(blue)}
    tags |= {name: _gamma(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", {b"wtpt": _xyz((0.9642, 1.0, 0.8249)), **tags})


def grey(gamma):
    """A profile of grey pictures."""
    tags = {b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"kTRC": _gamma(gamma)}
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags)


def cmyk(cyan=(60, 80, 60), padding=0):
    """A profile of a press whose cyan ink has this colour (L, a, b), and whose black covers all."""

    def lab(c, m, y, k):
        if k:
            return 0, 0, 0
        return cyan if c and not (m or y) else (100 - 25 * (c + m + y), 0, 0)

    nodes = [lab(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    grid = bytes(level for lum, a, b in nodes for level in (round(lum * 2.55), a + 128, b + 128))
    lut = b"mft1" + bytes(4) + struct.pack(">4B9i", 4, 3, 2, 0, *(65536, 0, 0) * 3)
    lut += bytes(range(256)) * 4 + grid + bytes(range(256)) * 3
    tags = {b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"A2B0": lut}
    if padding:
        tags[b"text"] = b"text" + bytes(4 + padding)
    return _profile(b"prtr", b"CMYK", b"Lab ", tags)
