import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // Small assets stay files that can be cached, instead of data: URLs in the bundle.
  build: { assetsInlineLimit: 0 },
});
