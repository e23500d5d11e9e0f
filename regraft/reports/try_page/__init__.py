"""The page to try a model in a browser: one HTML file with the model and ONNX Runtime Web in it.

`page.html`, `page.css` and the scripts are ours; ONNX Runtime Web comes from the npm registry and is compared with the
digests in `runtime.json`.
"""
