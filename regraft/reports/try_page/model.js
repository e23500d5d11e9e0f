// The model, and what it says of pixels. `ort` is ONNX Runtime Web, which the page has above.

/** Return the bytes of a part of the page: base64 of gzip. */
async function bytesOf(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent);
  element.remove(); // tens of megabytes
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Return a function from { rgb, width, height } to { probabilities, novelty, maps }, arrays or null. */
async function loadModel(outputs) {
  ort.env.wasm.wasmBinary = (await bytesOf("page-runtime")).buffer;
  ort.env.wasm.numThreads = 1; // more need memory that pages share, which a file on disk is not given
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(await bytesOf("page-model"), { executionProviders: ["wasm"] });
  return async ({ rgb, width, height }) => {
    const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
    const found = await session.run({ image }, outputs);
    const { probabilities, novelty, maps } = found;
    return {
      probabilities: probabilities.data,
      novelty: novelty ? novelty.data[0] : null,
      maps: maps ? { values: maps.data, rows: maps.dims[2], columns: maps.dims[3] } : null,
    };
  };
}

/**
 * Return how much each position speaks for a class, 0 to 1: what its map has above the mean of all maps, as `heat` in
 * regraft/export/activation_maps.py.
 */
function heatOf(maps, classIndex) {
  const size = maps.rows * maps.columns;
  const classes = maps.values.length / size;
  const heat = new Float32Array(size);
  for (let at = 0; at < size; at++) {
    let sum = 0;
    for (let index = 0; index < classes; index++) sum += maps.values[index * size + at];
    heat[at] = Math.max(0, maps.values[classIndex * size + at] - sum / classes);
  }
  const largest = Math.max(...heat) || 1;
  return { rows: maps.rows, columns: maps.columns, values: heat.map((value) => value / largest) };
}
