/** dialtone-client: fetches a Telnyx WebRTC login, refreshes it, and revokes it at logout. */

export { Phone } from "./phone.js";
export type { CallOf, CallOptions, Events, PhoneOptions, SdkClient, SdkOptions, State } from "./contract.js";
export { Api } from "./api.js";
export type { ApiOptions, Device, Login, Platform } from "./api.js";
export type { LoginInfo } from "./token-source.js";
export { DialtoneError } from "./errors.js";
export type { Code, Problem } from "./errors.js";
export { tabDeviceId } from "./device.js";
