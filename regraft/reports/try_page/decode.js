// From a file to the pixels that the network was trained on: RGB, upright, the first frame, on white, no colour profile
// applied. As regraft/photos/images.py does it.

const TOO_LARGE = 120_000_000; // pixels; a phone's photo has 12 to 50 million
const AS_IT_IS = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };

/** Return a file as an upright ImageBitmap; errors say what to do. */
async function openPhoto(file) {
  if (file.size === 0) throw new Error("The file is empty.");
  const start = new TextDecoder("latin1").decode(await file.slice(0, 16).arrayBuffer());
  let bitmap = null;
  try {
    bitmap = (await openGrey16(file)) ?? (await createImageBitmap(file, AS_IT_IS));
    if (start.startsWith("RIFF")) bitmap = await turnWebp(file, bitmap);
  } catch (error) {
    console.warn(error);
    throw new Error(
      /^....ftyp(hei|hev|mif1|msf1)/s.test(start)
        ? "This browser cannot read HEIC. Save the photo as JPEG, or give it to `regraft predict`."
        : "This browser cannot read it as a photo: it is damaged, or of a format that browsers do not know.",
    );
  }
  if (bitmap.width * bitmap.height > TOO_LARGE) {
    const size = `${bitmap.width} x ${bitmap.height}`;
    bitmap.close();
    throw new Error(`It has ${size} pixels, more than a browser has memory for. Give it to \`regraft predict\`.`);
  }
  return bitmap;
}

/**
 * Return { rgb, width, height } of what the network can see: uint8, three a pixel.
 *
 * The graph takes the centre square. What lies beside it is left out here already, so a panorama takes no memory: of
 * the longer side as much as of the shorter one, and one more if otherwise the middle would be half a pixel elsewhere.
 */
function pixelsOf(bitmap) {
  const side = Math.min(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width, bitmap.height].map((length) => side + ((length - side) % 2));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new Error("It has more pixels than this browser can draw. Give it to `regraft predict`.");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, -(bitmap.width - width) / 2, -(bitmap.height - height) / 2);
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return { rgb, width, height };
}
