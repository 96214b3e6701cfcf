// An exported file under onnxruntime-web: node exported_web.cjs MODEL HEIGHT WIDTH < pixels of images, uint8 RGB
// Prints {"version", "probabilities", "labels"}. onnxruntime-web is found by NODE_PATH.
const fs = require("fs");
const ort = require("onnxruntime-web");

async function main(path, height, width) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(path)));
  const pixels = new Uint8Array(fs.readFileSync(0));
  const size = height * width * 3;
  const found = { version: ort.env.versions.web, probabilities: [], labels: [] };
  for (let start = 0; start < pixels.length; start += size) {
    const image = new ort.Tensor("uint8", pixels.slice(start, start + size), [height, width, 3]);
    const { probabilities, label } = await session.run({ image });
    found.probabilities.push(Array.from(probabilities.data));
    found.labels.push(Number(label.data[0]));
  }
  console.log(JSON.stringify(found));
}

main(process.argv[2], Number(process.argv[3]), Number(process.argv[4]));
