import { defineConfig } from 'vite';

export default defineConfig({
  build: {
    minify: 'terser',
    // Small assets stay files of their own, so that the content security policy needs no exceptions.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        // Libraries change less often than the page: in a bundle of their own they stay cached.
        manualChunks: (id) => (id.includes('node_modules') ? 'vendor' : undefined),
      },
    },
  },
  server: {
    proxy: { '/api': 'http://localhost:5000' },
  },
});
