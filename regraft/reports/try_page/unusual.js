// What browsers read otherwise than Regraft does: 16 bits of grey, and the orientation that a WebP notes.

/** Return a PNG of 16 bits of grey as an ImageBitmap, scaled to 8 bits (browsers cut them off); null of other files. */
async function openGrey16(file) {
  const head = new DataView(await file.slice(0, 33).arrayBuffer());
  if (head.byteLength < 33 || head.getUint32(0) !== 0x89504e47 || head.getUint32(12) !== 0x49484452) return null;
  const [width, height] = [head.getUint32(16), head.getUint32(20)];
  // Depth, colour type and interlacing.
  if (head.getUint8(24) !== 16 || head.getUint8(25) !== 0 || head.getUint8(28) !== 0) return null;
  if (width * height > TOO_LARGE) return null;
  const packed = chunksOf(await file.arrayBuffer());
  const rows = packed && (await inflated(packed, height * (1 + 2 * width)));
  return rows && createImageBitmap(new ImageData(greyOf(rows, width, height), width, height));
}

/** Return the compressed pixels of a PNG; null if it has a transparent grey or an orientation, which is rarer still. */
function chunksOf(buffer) {
  const [view, parts] = [new DataView(buffer), []];
  for (let at = 8; at + 12 <= buffer.byteLength; ) {
    const [length, name] = [view.getUint32(at), view.getUint32(at + 4)];
    if (name === 0x74524e53 || name === 0x65584966) return null; // tRNS, eXIf
    if (name === 0x49444154) parts.push(buffer.slice(at + 8, at + 8 + length)); // IDAT
    at += 12 + length;
  }
  return parts;
}

/** Return so many bytes of what zlib packed, or null if it is damaged. */
async function inflated(parts, length) {
  const bytes = new Uint8Array(length);
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    for (let at = 0; at < length; ) {
      const { value, done } = await reader.read();
      if (done) return null;
      bytes.set(value.subarray(0, length - at), at);
      at += value.length;
    }
    return bytes;
  } catch {
    return null;
  }
}

/** Undo the filter of each row, as the PNG specification says, and return RGBA; `bytes` is changed. */
function greyOf(bytes, width, height) {
  const [stride, rgba] = [2 * width, new Uint8ClampedArray(4 * width * height).fill(255)];
  for (let row = 0, to = 0; row < height; row++) {
    const start = row * (stride + 1) + 1;
    const filter = bytes[start - 1];
    for (let x = 0; x < stride; x++) {
      const at = start + x;
      const left = x > 1 ? bytes[at - 2] : 0;
      const up = row ? bytes[at - stride - 1] : 0;
      const corner = row && x > 1 ? bytes[at - stride - 3] : 0;
      bytes[at] += [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
    }
    for (let at = start; at < start + stride; at += 2, to += 4) {
      rgba.fill(Math.floor((256 * bytes[at] + bytes[at + 1]) / 257), to, to + 3);
    }
  }
  return rgba;
}

function paeth(left, up, corner) {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

// Two pixels side by side, to be turned by 90 degrees.
const TURNED =
  "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0P" +
  "RET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";
let turnsWebp; // whether the browser does it itself

/** Return a bitmap upright that came from a WebP. */
async function turnWebp(file, bitmap) {
  const orientation = orientationOf(new DataView(await file.arrayBuffer()));
  if (orientation < 2) return bitmap;
  if (turnsWebp === undefined) {
    const probe = Uint8Array.from(atob(TURNED), (letter) => letter.charCodeAt(0));
    turnsWebp = (await createImageBitmap(new Blob([probe]))).width === 1;
  }
  return turnsWebp ? bitmap : turned(bitmap, orientation);
}

/** Return what the EXIF of a WebP says, 1 to 8; 1 if it says nothing. */
function orientationOf(view) {
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const length = view.getUint32(at + 4, true);
    if (view.getUint32(at) === 0x45584946) {
      // EXIF, with or without the six bytes that JPEG puts before it
      const start = at + 8 + (view.getUint32(at + 8) === 0x45786966 ? 6 : 0);
      const little = view.getUint16(start) === 0x4949;
      const table = start + view.getUint32(start + 4, little);
      for (let entry = 0; entry < view.getUint16(table, little); entry++) {
        const place = table + 2 + 12 * entry;
        if (view.getUint16(place, little) === 0x0112) return view.getUint16(place + 8, little);
      }
      return 1;
    }
    at += 8 + length + (length % 2);
  }
  return 1;
}

function turned(bitmap, orientation) {
  const { width: w, height: h } = bitmap;
  const canvas = orientation < 5 ? new OffscreenCanvas(w, h) : new OffscreenCanvas(h, w);
  const context = canvas.getContext("2d", { colorSpace: "srgb" });
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const matrices = [
    [-1, 0, 0, 1, w, 0],
    [-1, 0, 0, -1, w, h],
    [1, 0, 0, -1, 0, h],
    [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, h, 0],
    [0, -1, -1, 0, h, w],
    [0, -1, 1, 0, 0, w],
  ];
  context.setTransform(...matrices[orientation - 2]);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}
