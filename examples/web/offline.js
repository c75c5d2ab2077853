// A service worker: keeps the page for when there is no network, and adds the headers that threads need.
const HEADERS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const FILES = "./ page.js worker.js constants.js landmarks.js detector.js geometry.js outputs.js style.css"
  + " astronaut.jpg runtime/ort.wasm.bundle.min.mjs runtime/ort-wasm-simd-threaded.wasm"
  + " models/landmark.onnx models/retinaface.onnx";

async function answer(request) {
  const cache = await caches.open("68-points");
  const found = await fetch(request).catch(() => cache.match(request, { ignoreMethod: true }));
  if (found?.status === 200 && request.method === "GET") await cache.put(request, found.clone());
  const headers = { ...Object.fromEntries(found?.headers ?? []), ...HEADERS };
  return found ? new Response(found.body, { status: found.status, headers }) : Response.error();
}

oninstall = (event) => event.waitUntil(caches.open("68-points").then((cache) => cache.addAll(FILES.split(" "))));
onactivate = (event) => event.waitUntil(clients.claim());
onfetch = (event) => event.request.url.startsWith(location.origin) && event.respondWith(answer(event.request));
