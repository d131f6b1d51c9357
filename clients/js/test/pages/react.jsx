/** A page with React and the real SDK, for the tests with a real browser. esbuild bundles it. */

import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

import { TelnyxRTC } from "@telnyx/webrtc";

import { Phone } from "../../dist/index.js";
import { PhoneProvider, useDevices, usePhone } from "../../dist/react.js";

const { service, token } = globalThis.config;
const options = {
  url: service,
  accessToken: async () => token,
  createClient: (sdkOptions) => new TelnyxRTC({ ...sdkOptions, iceServers: [] }),
};

function Status() {
  const { state, error, sipUri } = usePhone();
  const { devices } = useDevices();
  return <p id="status" data-state={state} data-devices={devices?.length}>{error?.code ?? sipUri}</p>;
}

function WithProvider() {
  return <PhoneProvider {...options} user="alice"><Status /></PhoneProvider>;
}

/** The component that an application writes without the provider. */
function WithEffect() {
  const [state, setState] = useState("idle");
  useEffect(() => {
    const phone = new Phone(options);
    phone.on("state", setState);
    phone.connect().catch((error) => setState(error.code));
    return () => void phone.close();
  }, []);
  return <p id="status" data-state={state} />;
}

const components = { WithProvider, WithEffect };
let root;

globalThis.mount = (name) => {
  const Component = components[name];
  root = createRoot(document.body.appendChild(document.createElement("div")));
  root.render(<StrictMode><Component /></StrictMode>);
};
globalThis.unmount = () => root.unmount();
globalThis.newPhone = () => new Phone(options);
