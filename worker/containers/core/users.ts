/** Who a container's process runs as: `User` of a configuration, looked up in the image's own /etc/passwd and /etc/group. */

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  /** `/` when passwd does not say. */
  readonly home: string;
}

export type UserLookup =
  { readonly ok: true; readonly user: ProcessUser } | { readonly ok: false; readonly why: string };

const idMax = 0xfffffffe;

/** Decimal digits only: no sign, no space, no overflow (CVE-2026-30892). */
function parseId(text: string): number | undefined {
  if (!/^[0-9]{1,10}$/.test(text)) return undefined;
  const id = Number(text);
  return id <= idMax ? id : undefined;
}

interface PasswdLine {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

function parsePasswd(text: string): PasswdLine[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , uidText = "", gidText = "", , home = ""] = line.split(":");
    const uid = parseId(uidText);
    const gid = parseId(gidText);
    return name === "" || uid === undefined || gid === undefined ? [] : [{ name, uid, gid, home }];
  });
}

interface GroupLine {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

function parseGroup(text: string): GroupLine[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , gidText = "", members = ""] = line.split(":");
    const gid = parseId(gidText);
    return name === "" || gid === undefined ? [] : [{ name, gid, members: members.split(",").filter((m) => m !== "") }];
  });
}

/**
 * @param wanted    `""`, `user`, `uid`, `user:group`, `uid:gid`
 * @param groupAdd  further groups, by name or number
 */
export function lookUpUser(wanted: string, groupAdd: readonly string[], passwd: string, group: string): UserLookup {
  const users = parsePasswd(passwd);
  const groups = parseGroup(group);
  const [userText = "", groupText] = wanted.split(":", 2);
  const numeric = userText === "" ? 0 : parseId(userText);
  // A name made of digits wins over the number, as in the Engine.
  const entry = users.find((user) => user.name === userText) ?? users.find((user) => user.uid === numeric);
  if (entry === undefined && numeric === undefined) {
    return { ok: false, why: `unable to find user ${userText}: no matching entries in passwd file` };
  }
  const uid = entry?.uid ?? numeric ?? 0;
  let gid = entry?.gid ?? 0;
  let additional: number[] = [];
  if (groupText !== undefined && groupText !== "") {
    const found = groups.find((line) => line.name === groupText)?.gid ?? parseId(groupText);
    if (found === undefined)
      return { ok: false, why: `unable to find group ${groupText}: no matching entries in group file` };
    gid = found;
  } else if (entry !== undefined) {
    additional = groups.filter((line) => line.members.includes(entry.name)).map((line) => line.gid);
  }
  for (const name of groupAdd) {
    const found = groups.find((line) => line.name === name)?.gid ?? parseId(name);
    if (found === undefined)
      return { ok: false, why: `unable to find group ${name}: no matching entries in group file` };
    additional.push(found);
  }
  const home = entry?.home === undefined || entry.home === "" ? "/" : entry.home;
  return { ok: true, user: { uid, gid, additionalGids: [...new Set(additional)], home } };
}
