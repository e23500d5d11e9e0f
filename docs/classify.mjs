// Classify a photo: npm install --ignore-scripts onnxruntime-node sharp; node docs/classify.mjs models/model.onnx a.jpg
import { readFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";

/** Return a photo as those were that the network was trained on: uint8 RGB, upright, on white. */
async function read(path) {
  const photo = sharp(path, { ignoreIcc: true }).autoOrient();
  const { depth, channels } = await photo.metadata();
  if (!["uchar", "ushort"].includes(depth)) throw new Error(`${path} has pixels of type ${depth}: no agreed range`);
  const wide = depth === "ushort" && channels === 1; // 16 bits of grey: sharp would cut 8 of them off
  const pixels = photo.toColourspace(wide ? "grey16" : "srgb").ensureAlpha().raw({ depth: wide ? "ushort" : "uchar" });
  const { data, info } = await pixels.toBuffer({ resolveWithObject: true });
  const rgb = new Uint8Array(3 * info.width * info.height);
  for (let to = 0; to < rgb.length; to++) {
    const from = Math.floor(to / 3);
    if (wide) rgb[to] = Math.floor(data.readUInt16LE(2 * info.channels * from) / 257);
    else rgb[to] = Math.round(255 + ((data[4 * from + (to % 3)] - 255) * data[4 * from + 3]) / 255);
  }
  return new Tensor("uint8", rgb, [1, info.height, info.width, 3]);
}

/** Yield number and value of each field of a protobuf that is text or another protobuf. */
function* fields(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const [tag, value] = [0, 0].map(() => {
      for (let number = 0, unit = 1; ; unit *= 128) {
        number += (bytes[at] & 127) * unit;
        if (bytes[at++] < 128) return number;
      }
    });
    if (tag % 8 === 2) yield [tag >> 3, bytes.subarray(at, (at += value))];
  }
}

const [model, path] = [await readFile(process.argv[2]), process.argv[3]];
const properties = [...fields(model)].filter(([number]) => number === 14); // what the file says of itself
const facts = Object.fromEntries(properties.map(([, entry]) => [...fields(entry)].map(([, text]) => text.toString())));
const session = await InferenceSession.create(model);
const { probabilities } = await session.run({ image: await read(path) }, ["probabilities"]);
const answers = JSON.parse(facts.class_names).map((name, index) => [probabilities.data[index], name]);
answers.sort(([one], [other]) => other - one);
if (answers[0][0] < Math.fround(facts.abstain_below ?? 0)) console.log("unsure"); // else target_precision are right
for (const [probability, name] of answers.slice(0, 5)) console.log(`${probability.toFixed(4)}  ${name}`);
