/** What services and tasks ask of the allocator, as their specs say it. */
import type { skep } from "./gen/skep.js";

type Service = skep.objects.Service.$Properties;

/** Networks of the tasks; those of the service itself stand for them where the tasks name none. */
export function networksOfService({ spec }: Service): readonly skep.objects.NetworkAttachmentConfig.$Properties[] {
  const own = spec?.taskTemplate?.networks ?? [];
  return own.length > 0 ? own : (spec?.networks ?? []);
}

/** The service itself is to have addresses or ports before its tasks may be placed. */
export function needsEndpoint(service: Service): boolean {
  return networksOfService(service).length > 0 || (service.spec?.endpointSpec?.ports ?? []).length > 0;
}

/** Nothing is to be allocated to the task before it may be placed. */
export function asksForNothing(task: skep.objects.Task.$Properties, service: Service | undefined): boolean {
  return (task.spec?.networks ?? []).length === 0 && (service === undefined || !needsEndpoint(service));
}
