/** st_mode of inode(7) as Go's fs.FileMode, which X-Docker-Container-Path-Stat carries. Pure. */

const types: Readonly<Record<number, number>> = {
  0o040000: 2 ** 31,
  0o120000: 2 ** 27,
  0o060000: 2 ** 26,
  0o010000: 2 ** 25,
  0o140000: 2 ** 24,
  0o020000: 2 ** 26 + 2 ** 21,
};

export function goFileMode(mode: number): number {
  const bits = [
    [0o4000, 2 ** 23],
    [0o2000, 2 ** 22],
    [0o1000, 2 ** 20],
  ] as const;
  const special = bits.reduce((sum, [bit, value]) => sum + ((mode & bit) !== 0 ? value : 0), 0);
  return (types[mode & 0o170000] ?? 0) + special + (mode & 0o777);
}
