import { startConsole } from "../startConsole";
import { demoSite } from "./demoSite";

startConsole(demoSite);
