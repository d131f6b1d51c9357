/** The README's example with the real SDK's types. `npm test` compiles it and does not run it. */

import { TelnyxRTC } from "@telnyx/webrtc";

import { Phone, type PhoneOptions } from "../dist/index.js";

declare const auth: { getAccessToken(): Promise<string | null> };

const phone = new Phone({
  url: "https://phones.example.com",
  accessToken: () => auth.getAccessToken(),
  createClient: (options) => new TelnyxRTC(options),
});

export async function main(): Promise<void> {
  phone.on("error", (error) => {
    if (error.code === "device_limit_reached") console.log(error.message, error.details.requestId);
    // @ts-expect-error a code that the service does not have
    if (error.code === "no_such_code") return;
  });
  phone.on("ready", (client) => client.newCall({ destinationNumber: "sip:a@sip.telnyx.com", audio: true }));
  await phone.connect();
  phone.client?.newCall({ ...phone.callOptions, destinationNumber: "sip:a@sip.telnyx.com", audio: true });
  await phone.logout();
}

/** Sign-in libraries return different values without a user: Clerk null, Firebase and Keycloak undefined. */
export const sources: PhoneOptions<TelnyxRTC>["accessToken"][] = [
  (): Promise<string | null> => auth.getAccessToken(),
  (): Promise<string> | undefined => undefined,
  async (): Promise<string | undefined> => undefined,
];
