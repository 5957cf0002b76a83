/** What an application for React Native imports. */
export * from "../src/index.js";
export * from "../src/react.js";
