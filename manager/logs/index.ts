/**
 * Logs: brings the output of tasks from their nodes to whoever asks a manager for it. Nothing is kept.
 * In:    a request for services and tasks; tasks from a store watch; lines from nodes, one stream a subscription.
 * Out:   lines with their task, service and node; what is missing, and why.
 * Uses:  store, proto, lib; the sessions of agents, handed over by manager.ts.   Used by: control, through manager.ts.
 */
export { LogBroker, serveLogs, type AgentSessions, type LogBrokerOptions } from "./log-broker.ts";
