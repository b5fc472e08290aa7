"""Draw squares and discs for ms2, with Python's standard library alone; the argument is their side in pixels.

Each line of the input is a scene in JSON; the images are written as PNG, and the answer is a line of JSON.
"""

import json
import struct
import sys
import zlib


def write_png(path, width, height, pixels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))  # 8 bits, grey
    rows = b"".join(b"\0" + bytes(pixels[y * width : (y + 1) * width]) for y in range(height))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


side = int(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    width, height = request["width"], request["height"]
    image, instances, objects = [25] * (width * height), [0] * (width * height), []
    for number, shape in enumerate(request["scene"]["objects"], 1):
        x, y = (side / 2 + shape["attributes"][axis] * (size - side) for axis, size in (("x", width), ("y", height)))
        pixels = []
        for place in range(width * height):
            dx, dy = place % width + 0.5 - x, place // width + 0.5 - y
            if max(abs(dx), abs(dy)) < side / 2 and (shape["class"] == "square" or dx * dx + dy * dy < (side / 2) ** 2):
                pixels.append(place)
                image[place], instances[place] = {"square": 127, "disc": 230}[shape["class"]], number
        columns, rows = [place % width for place in pixels], [place // width for place in pixels]
        objects.append({"box": [min(columns), min(rows), max(columns) + 1, max(rows) + 1], "pixels": len(pixels)})
    write_png(request["image"], width, height, image)
    if request["labels"]:
        write_png(request["instances"], width, height, instances)
    print(json.dumps({"objects": objects}), flush=True)
