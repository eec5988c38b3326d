// What node lacks of a browser's page: an origin, a cookie jar, somebody to ask. Loaded before an example.
let cookie = "";
globalThis.prompt = () => process.env.SOUK_API_KEY;
globalThis[Symbol.for("undici.globalOrigin.1")] = new URL(process.env.SOUK_URL);

const fetchWithoutJar = globalThis.fetch;
globalThis.fetch = async (...given) => {
  const response = await fetchWithoutJar(...given);
  for (const line of response.headers.getSetCookie()) cookie = line.split(";")[0];
  return response;
};

await fetchWithoutJar("data:,"); // the dispatcher is made by the first request
const dispatcher = Symbol.for("undici.globalDispatcher.1");
const agent = globalThis[dispatcher];
globalThis[dispatcher] = {
  dispatch: (options, handler) => agent.dispatch({ ...options, headers: { ...options.headers, cookie } }, handler),
};
