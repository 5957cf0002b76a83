import { serverSite } from "./server/serverSite";
import { startConsole } from "./startConsole";

startConsole(serverSite);
