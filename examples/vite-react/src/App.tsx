/** Signs a user in, and gives the user a phone. */

import { useCallback, useState } from "react";

import { TelnyxRTC } from "@telnyx/webrtc";
import { PhoneProvider } from "dialtone-client/react";

import { Softphone } from "./Softphone";
import { USERS, getAccessToken } from "./auth";

const DIALTONE = "http://127.0.0.1:8010"; // the service of `make dev`

export function App() {
  const [user, setUser] = useState<string>();
  const [mediaError, setMediaError] = useState<string>();
  const signOut = useCallback(() => setUser(undefined), []);

  if (user === undefined) return <SignIn onSignIn={setUser} />;
  return (
    <PhoneProvider
      url={DIALTONE}
      user={user}
      accessToken={() => getAccessToken(user)}
      createClient={(options) => {
        const client = new TelnyxRTC(options);
        client.remoteElement = "remote";
        // dialtone-client reports failed logins. Only the SDK knows whether the microphone is available (42001 to 42003).
        client.on("telnyx.error", ({ error }) => Math.floor(error.code / 1000) === 42 && setMediaError(error.message));
        return client;
      }}
    >
      <Softphone mediaError={mediaError} onDial={() => setMediaError(undefined)} onSignOut={signOut} />
      <audio id="remote" autoPlay />
    </PhoneProvider>
  );
}

function SignIn({ onSignIn }: { onSignIn: (user: string) => void }) {
  const [user, setUser] = useState(USERS[0]);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        onSignIn(user);
      }}
    >
      <label>
        User{" "}
        <select value={user} onChange={(event) => setUser(event.target.value)}>
          {USERS.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>{" "}
      <button>Sign in</button>
    </form>
  );
}
