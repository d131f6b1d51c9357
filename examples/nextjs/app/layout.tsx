import type { Metadata } from "next";
import type { ReactNode } from "react";

export const metadata: Metadata = { title: "Phone", icons: "data:," };

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <h1>Phone</h1>
        {children}
      </body>
    </html>
  );
}
