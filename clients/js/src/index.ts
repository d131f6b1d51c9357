/** dialtone-client: a Telnyx WebRTC login that is fetched, kept fresh and given back. */

export { Phone } from "./phone.js";
export type { Events, PhoneOptions, SdkClient, SdkOptions, State } from "./contract.js";
export { Api } from "./api.js";
export type { ApiOptions, Login, Platform } from "./api.js";
export { DialtoneError } from "./errors.js";
export type { Code, Problem } from "./errors.js";
export { tabDeviceId } from "./device.js";
