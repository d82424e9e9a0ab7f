#!/usr/bin/env python3
"""Makes the image samples in this folder and what Pillow reads from them.

expected.json: per file the size, the largest allowed difference, and where its pixels (height x width x 3 bytes) lie in expected.rgb.

Run once with Pillow 13.0.0 and numpy; the results are kept, because other versions of the codecs write other bytes. The files that
Pillow cannot write (palette with stray indices, GIF with an offset frame, BMP with run lengths or bit fields) are put together by hand.
"""
import io, json, os, random, struct, zlib

import numpy as np
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
expected = {}
blob = bytearray()


def picture(width, height, seed=0):
    """Smooth colours with a few hard edges, no symmetry, so that every mistake in order or place shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = 127 + 120 * np.sin(x / 5 + seed) * np.cos(y / 7)
    pixels = np.stack([red, green, blue], -1).clip(0, 255).astype(np.uint8)
    pixels[height // 4:height // 2, width // 5:width // 3] = (250, 20, 30)
    pixels[height // 2:height // 2 + 3, width // 2:] = (5, 240, 90)
    return Image.fromarray(pixels, "RGB")


def alpha(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(((x * 7 + y * 5) % 256).astype(np.uint8), "L")


def add(name, data, tolerance=0, pixels=None, note=None):
    """Keeps the file and what Pillow makes of it. `pixels` replaces Pillow's answer where the note says why."""
    with open(os.path.join(HERE, name), "wb") as file: file.write(data)
    if pixels is None: pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    height, width, _ = pixels.shape
    expected[name] = entry = {"width": width, "height": height, "tolerance": tolerance, "offset": len(blob)}
    blob.extend(pixels.tobytes())
    if note: entry["note"] = note


def saved(image, format, **options):
    buffer = io.BytesIO(); image.save(buffer, format, **options); return buffer.getvalue()


def chunk(kind, body): return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour_type, rows, before=b"", interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def adam7(image_bytes, width, height, pixel_bytes):
    """The rows of an interlaced PNG, filter 0."""
    rows = b""
    pixels = np.frombuffer(image_bytes, np.uint8).reshape(height, width, pixel_bytes)
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        part = pixels[y0::dy, x0::dx]
        if part.size: rows += b"".join(b"\0" + row.tobytes() for row in part)
    return rows


def jpegs():
    for name, size, options in [
        ("jpeg-444.jpg", (40, 24), dict(quality=90, subsampling=0)), ("jpeg-420-odd.jpg", (37, 23), dict(quality=85, subsampling=2)),
        ("jpeg-422-odd.jpg", (33, 21), dict(quality=85, subsampling=1)), ("jpeg-1x1.jpg", (1, 1), dict(quality=90)),
        ("jpeg-progressive.jpg", (45, 31), dict(quality=80, progressive=True)),
        ("jpeg-restart.jpg", (64, 40), dict(quality=75, restart_marker_blocks=2)),
    ]: add(name, saved(picture(*size), "JPEG", **options), 2)
    add("jpeg-gray.jpg", saved(picture(29, 30).convert("L"), "JPEG", quality=90), 2)
    add("jpeg-cmyk.jpg", saved(picture(31, 26).convert("CMYK"), "JPEG", quality=90), 2)
    add("jpeg-rgb.jpg", saved(picture(26, 18), "JPEG", quality=90, keep_rgb=True), 2)
    base = picture(24, 16)
    for orientation in range(1, 9):
        exif = Image.Exif(); exif[0x0112] = orientation
        data = saved(base, "JPEG", quality=92, subsampling=0, exif=exif)
        add(f"exif-{orientation}.jpg", data, 2, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")))
    exif = Image.Exif(); exif[0x0112] = 6
    for name, format, options in [("exif-6.png", "PNG", {}), ("exif-6.webp", "WEBP", dict(lossless=True))]:
        data = saved(base, format, exif=exif, **options)
        add(name, data, 0, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")))


def pngs():
    base = picture(37, 25)
    add("png-rgb.png", saved(base, "PNG"))
    rgba = base.copy(); rgba.putalpha(alpha(37, 25)); add("png-rgba.png", saved(rgba, "PNG"))
    add("png-gray.png", saved(base.convert("L"), "PNG"))
    la = base.convert("L").convert("LA"); la.putalpha(alpha(37, 25)); add("png-gray-alpha.png", saved(la, "PNG"))
    add("png-1bit.png", saved(base.convert("1"), "PNG"))
    for bits in (1, 2, 4, 8):
        add(f"png-palette-{bits}.png", saved(base.quantize(1 << bits), "PNG", bits=bits))
    paletted = base.quantize(16); add("png-palette-transparent.png", saved(paletted, "PNG", transparency=bytes([0, 128, 255])))
    add("png-rgb-transparent.png", saved(base, "PNG", transparency=base.getpixel((3, 3))))
    for depth in (2, 4):
        rows = b""
        for y in range(5): rows += b"\0" + bytes(random.Random(y).randrange(256) for _ in range((13 * depth + 7) // 8))
        add(f"png-gray-{depth}bit.png", png(13, 5, depth, 0, rows))
    deep = random.Random(5)
    for name, colour_type, channels in [("rgb", 2, 3), ("rgba", 6, 4)]:
        rows = b"".join(b"\0" + bytes(deep.randrange(256) for _ in range(9 * channels * 2)) for _ in range(7))
        add(f"png-16bit-{name}.png", png(9, 7, 16, colour_type, rows))
    rows = [bytes(deep.randrange(256) for _ in range(9 * 2)) for _ in range(7)]
    gray = np.array([[row[2 * x] for x in range(9)] for row in rows], np.uint8)
    add("png-16bit-gray.png", png(9, 7, 16, 0, b"".join(b"\0" + row for row in rows)), 0, np.stack([gray] * 3, -1),
        "the high byte; Pillow clips 16-bit grey to 255 instead, which leaves a white picture")
    add("png-interlaced.png", png(19, 13, 8, 2, adam7(picture(19, 13).tobytes(), 19, 13, 3), interlace=1))
    add("png-interlaced-1x3.png", png(1, 3, 8, 2, adam7(picture(1, 3).tobytes(), 1, 3, 3), interlace=1))
    add("png-stray-index.png", png(4, 1, 8, 3, b"\0" + bytes([0, 1, 2, 200]), chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))))


def webps():
    base = picture(41, 27)
    add("webp-lossy.webp", saved(base, "WEBP", quality=80), 2)
    add("webp-lossless.webp", saved(base, "WEBP", lossless=True))
    rgba = base.copy(); rgba.putalpha(alpha(41, 27))
    add("webp-alpha-lossy.webp", saved(rgba, "WEBP", quality=80), 2)
    add("webp-alpha-lossless.webp", saved(rgba, "WEBP", lossless=True, exact=True))
    add("webp-animated.webp", saved(base, "WEBP", lossless=True, save_all=True, append_images=[picture(41, 27, 2)], duration=100))
    # An animation whose first frame is smaller than its canvas.
    still = saved(picture(10, 8), "WEBP", lossless=True)
    payload = still[12:]
    three = lambda value: struct.pack("<I", value)[:3]
    frame = three(4 // 2) + three(6 // 2) + three(9) + three(7) + three(100) + b"\0" + payload
    riff = lambda kind, body: kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    body = b"WEBP" + riff(b"VP8X", b"\x02\0\0\0" + three(19) + three(15)) + riff(b"ANIM", b"\xff\xff\xff\xff\0\0") + riff(b"ANMF", frame)
    add("webp-offset-frame.webp", b"RIFF" + struct.pack("<I", len(body)) + body)


def lzw(indices, size):
    """GIF's compression without compression: a clear code often enough that codes never grow."""
    clear, width = 1 << size, size + 1
    value = count = 0
    for position, index in enumerate(indices):
        if position % ((1 << size) - 2 or 1) == 0: value |= clear << count; count += width
        value |= index << count; count += width
    value |= (clear + 1) << count; count += width
    data = value.to_bytes((count + 7) // 8, "little")
    return bytes([size]) + b"".join(bytes([len(data[i:i + 255])]) + data[i:i + 255] for i in range(0, len(data), 255)) + b"\0"


def gifs():
    base = picture(43, 29)
    add("gif-87a.gif", saved(base.quantize(200), "GIF", interlace=0))
    add("gif-interlaced.gif", saved(base.quantize(64), "GIF", interlace=1))
    add("gif-transparent.gif", saved(base.quantize(32), "GIF", transparency=4))
    add("gif-gray.gif", saved(base.convert("L"), "GIF"))
    add("gif-animated.gif", saved(base.quantize(16), "GIF", save_all=True, append_images=[picture(43, 29, 3).quantize(16)], duration=50))
    noise = np.random.default_rng(3).integers(0, 256, (70, 70), np.uint8)
    add("gif-full-table.gif", saved(Image.fromarray(noise, "L"), "GIF"))
    palette = bytes(random.Random(1).randrange(256) for _ in range(12))
    local = bytes(random.Random(2).randrange(256) for _ in range(24))
    control = lambda index: b"\x21\xf9\x04\x01\0\0" + bytes([index]) + b"\0"
    frame = lambda x, y, w, h, flags: b"\x2c" + struct.pack("<HHHHB", x, y, w, h, flags)
    screen = b"GIF89a" + struct.pack("<HHBBB", 7, 6, 0x81, 3, 0) + palette
    indices = [(i * 5 + i // 3) % 4 for i in range(12)]
    add("gif-offset.gif", screen + frame(2, 1, 4, 3, 0) + lzw(indices, 2) + b";")
    add("gif-offset-transparent.gif", screen + control(2) + frame(2, 1, 4, 3, 0) + lzw(indices, 2) + b";")
    add("gif-local-palette.gif", screen + frame(3, 0, 4, 3, 0x82) + local + lzw([(i * 3) % 8 for i in range(12)], 3) + b";")
    add("gif-no-palette.gif", b"GIF89a" + struct.pack("<HHBBB", 4, 3, 0, 0, 0) + frame(0, 0, 4, 3, 0) + lzw([i % 7 for i in range(12)], 3) + b";")
    add("gif-beyond-screen.gif", screen + frame(5, 4, 4, 3, 0) + lzw(indices, 2) + b";")
    add("gif-small-palette.gif", b"GIF89a" + struct.pack("<HHBBB", 4, 3, 0x80, 0, 0) + palette[:6] + frame(0, 0, 4, 3, 0) + lzw(indices, 2) + b";")


def bmp(width, height, bits, compression, data, palette=b"", header=40, masks=b"", colours=0):
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(data), 0, 0, colours, 0) + masks
    info += b"\0" * (header - 40 - len(masks)) if header > 40 else b""
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + palette + data


def bmps():
    base = picture(21, 14)
    add("bmp-24.bmp", saved(base, "BMP")); add("bmp-8.bmp", saved(base.quantize(200), "BMP")); add("bmp-1.bmp", saved(base.convert("1"), "BMP"))
    add("bmp-gray.bmp", saved(base.convert("L"), "BMP"))
    rgba = base.copy(); rgba.putalpha(alpha(21, 14)); add("bmp-32.bmp", saved(rgba, "BMP"))
    source = random.Random(9)
    some = lambda count: bytes(source.randrange(256) for _ in range(count))
    palette16 = some(64)
    add("bmp-4.bmp", bmp(11, 5, 4, 0, some(8 * 5), palette16))
    add("bmp-1-palette.bmp", bmp(35, 4, 1, 0, some(8 * 4), bytes([200, 30, 40, 0, 10, 220, 90, 0])))
    add("bmp-few-colours.bmp", bmp(6, 3, 8, 0, bytes([source.randrange(5) for _ in range(24)]), some(20), colours=5))
    add("bmp-16.bmp", bmp(7, 4, 16, 0, some(16 * 4)))
    add("bmp-565.bmp", bmp(7, 4, 16, 3, some(16 * 4), masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)))
    add("bmp-32-fields.bmp", bmp(5, 4, 32, 3, some(20 * 4), header=56, masks=struct.pack("<IIII", 0xFF000000, 0xFF0000, 0xFF00, 0xFF)))
    add("bmp-v5.bmp", bmp(5, 4, 32, 3, some(20 * 4), header=124, masks=struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)))
    add("bmp-top-down.bmp", bmp(9, -5, 24, 0, some(28 * 5)))
    add("bmp-os2.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 26 + 48) + struct.pack("<IHHHH", 12, 6, 4, 1, 4) + some(48) + some(4 * 4))
    palette = some(1024)
    # A run, a literal stretch (with padding), a jump that leaves pixels free, ends of rows, the end.
    rle8 = bytes([5, 7, 0, 3, 1, 2, 3, 0, 0, 0, 3, 9, 0, 2, 2, 1, 2, 4, 0, 0, 0, 4, 5, 6, 7, 8, 4, 200, 0, 0, 8, 33, 0, 1])
    add("bmp-rle8.bmp", bmp(8, 5, 8, 1, rle8, palette))
    rle4 = bytes([5, 0x7A, 0, 3, 0x12, 0x30, 0, 0, 3, 0x9B, 0, 2, 2, 1, 2, 0x4C, 0, 0, 0, 5, 0x56, 0x78, 0x90, 0, 3, 0xDE, 0, 0, 8, 0x3F, 0, 1])
    add("bmp-rle4.bmp", bmp(8, 5, 4, 2, rle4, palette16))


def exif_block(orientation=None, kind=3, count=1, order="<"):
    """A TIFF block with a maker's name and, where one is given, an orientation of some type."""
    name = b"Maker of cameras\0"
    value = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 9: "i", 10: "ii", 11: "f"}[kind]
    entries = [(0x010F, 2, len(name), None)] + ([(0x0112, kind, count, orientation)] if orientation is not None else [])
    end = 8 + 2 + 12 * len(entries) + 4
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    behind = b""
    for tag, type_, number, content in entries:
        data = name if content is None else struct.pack(order + value * number, *(content if isinstance(content, tuple) else (content,)))
        if len(data) > 4: data, behind = struct.pack(order + "I", end + len(behind)), behind + data
        block += struct.pack(order + "HHI", tag, type_, number) + data.ljust(4, b"\0")
    return block + struct.pack(order + "I", 0) + behind


def raw_profile(block):
    data = b"Exif\0\0" + block
    digits = data.hex().encode()
    return b"\nexif\n%8d\n" % len(data) + b"\n".join(digits[i:i + 72] for i in range(0, len(digits), 72)) + b"\n"


def xmp(orientation, spelling="attribute"):
    inner = b'<rdf:Description tiff:Orientation="%d"/>' if spelling == "attribute" else b"<rdf:Description><tiff:Orientation>%d</tiff:Orientation></rdf:Description>"
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>' + inner % orientation + b"</rdf:RDF></x:xmpmeta>"


def orientations():
    """Every place where ImageOps.exif_transpose looks, and which of several it believes."""
    base = picture(13, 9, 4)
    def turned(name, data, tolerance=0):
        add(name, data, tolerance, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")))

    raw, adobe = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
    text = lambda key, value: chunk(b"tEXt", key + value)
    packed = lambda key, value: chunk(b"zTXt", key + b"\0" + zlib.compress(value))
    plain = lambda key, value: chunk(b"iTXt", key + b"\0\0\0\0" + value)
    deflated = lambda key, value: chunk(b"iTXt", key + b"\1\0en\0\0" + zlib.compress(value))
    exif = lambda block: chunk(b"eXIf", block)
    still = saved(base, "PNG")
    png_with = lambda before=b"", after=b"", behind=b"": still[:33] + before + still[33:-12] + after + still[-12:] + behind
    for name, data in [
        ("raw-text", png_with(text(raw, raw_profile(exif_block(6))))), ("raw-packed", png_with(packed(raw, raw_profile(exif_block(8))))),
        ("raw-after", png_with(after=plain(raw, raw_profile(exif_block(3))))), ("xmp-attribute", png_with(plain(adobe, xmp(6)))),
        ("xmp-element", png_with(deflated(adobe, xmp(7, "element")))), ("xmp-text", png_with(text(adobe, xmp(5)))),
        ("exif-first", png_with(plain(adobe, xmp(8)) + text(raw, raw_profile(exif_block(6))), exif(exif_block(3)))),
        ("raw-before-xmp", png_with(plain(adobe, xmp(8)) + text(raw, raw_profile(exif_block(6))))),
        ("exif-without", png_with(exif(exif_block()) + text(raw, raw_profile(exif_block(3))) + plain(adobe, xmp(6)))),
        ("exif-of-9", png_with(exif(exif_block(9)) + plain(adobe, xmp(6)))), ("last-raw", png_with(text(raw, raw_profile(exif_block(6))) + packed(raw, raw_profile(exif_block(4))))),
        ("last-exif", png_with(exif(exif_block(6)), exif(exif_block(2)))), ("exif-text", png_with(text(b"exif\0", b"Exif\0\0" + exif_block(5)))),
        ("behind-end", png_with(behind=exif(exif_block(6)))), ("xmp-twice-named", png_with(plain(adobe, b"tiff:Orientation tiff:Orientation=6 " + xmp(8)))),
    ]: turned(f"orientation-{name}.png", data)

    still = saved(base, "JPEG", quality=92, subsampling=0)
    segment = lambda body: b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    jexif = lambda block: segment(b"Exif\0\0" + block)
    jxmp = lambda packet: segment(b"http://ns.adobe.com/xap/1.0/\0" + packet)
    frame, scan = still.index(b"\xff\xc0"), still.index(b"\xff\xda")
    front = lambda *parts: still[:20] + b"".join(parts) + still[20:]
    long = exif_block(8, order=">")
    for name, data in [
        ("after-frame", still[:scan] + jexif(exif_block(6)) + still[scan:]), ("xmp-attribute", front(jxmp(xmp(6)))),
        ("xmp-element", still[:scan] + jxmp(xmp(8, "element")) + still[scan:]), ("exif-first", front(jxmp(xmp(6)), jexif(exif_block(3)))),
        ("exif-without", front(jexif(exif_block()), jxmp(xmp(5)))), ("last-xmp", front(jxmp(xmp(3)), jxmp(xmp(6)))),
        ("two-segments", front(jexif(long[:30]), jexif(long[30:]))), ("long", front(jexif(exif_block(6, 4)))),
        ("rational", front(jexif(exif_block((12, 2), 5)))), ("float", front(jexif(exif_block(8.0, 11)))), ("byte", front(jexif(exif_block(6, 1)), jxmp(xmp(3)))),
        ("twice-prefixed", front(jexif(b"Exif\0\0" + exif_block(6)))), ("three-values", front(jexif(exif_block((6, 3, 1), 3, 3)))),
        ("broken-before", front(jexif(exif_block(6).replace(struct.pack("<I", 38), struct.pack("<I", 55))), jxmp(xmp(8)))),
    ]: turned(f"orientation-{name}.jpg", data, 2)

    for name, options in [("xmp", dict(xmp=xmp(6))), ("exif-without", dict(exif=exif_block(), xmp=xmp(8, "element"))), ("exif-first", dict(exif=exif_block(3), xmp=xmp(6)))]:
        turned(f"orientation-{name}.webp", saved(base, "WEBP", lossless=True, **options))


def damaged():
    """What a strict reader refuses and Pillow reads all the same."""
    def add_damaged(name, data, tolerance=0):
        add(name, data, tolerance)
        expected[name]["damaged"] = True

    restarts = saved(picture(64, 40), "JPEG", quality=75, restart_marker_blocks=2)
    cut = restarts.index(b"\xff\xd2")
    add_damaged("damaged-short-segment.jpg", restarts[:cut - 6] + restarts[cut:], 2)
    add_damaged("damaged-missing-restart.jpg", restarts[:cut] + restarts[cut + 2:], 2)
    odd = saved(picture(37, 23), "JPEG", quality=85, subsampling=2)
    add_damaged("damaged-early-end.jpg", odd[:-60] + b"\xff\xd9", 2)
    whole = saved(picture(19, 13), "PNG")
    add_damaged("damaged-without-end.png", whole[:-12])
    add_damaged("damaged-checksum.png", whole[:-16] + bytes(4) + whole[-12:])
    add_damaged("damaged-end-in-checksum.png", whole[:-18])
    add_damaged("damaged-end-name.png", whole[:-8] + b"END\xae")
    interlaced = png(19, 13, 8, 2, adam7(picture(19, 13).tobytes(), 19, 13, 3), interlace=1)
    add_damaged("damaged-interlaced.png", interlaced[:-20])
    column = png(1, 3, 8, 2, adam7(picture(1, 3).tobytes(), 1, 3, 3), interlace=1)
    add_damaged("damaged-interlaced-1x3.png", column[:-14])


jpegs(); pngs(); webps(); gifs(); bmps(); orientations(); damaged()
with open(os.path.join(HERE, "expected.json"), "w") as file: json.dump(expected, file, indent=1, sort_keys=True)
with open(os.path.join(HERE, "expected.rgb"), "wb") as file: file.write(blob)
print(len(expected), "samples")
