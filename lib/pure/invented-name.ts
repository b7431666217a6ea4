/** Names for containers and services that get none from their user. */
const moods =
  "amber brave bright calm clever eager fair fleet gentle golden happy hardy honest keen kind lively lucky merry mild noble proud quick quiet ready sage sharp shiny steady sunny swift tidy warm wise witty".split(
    " ",
  );
/** Plants that bees like. */
const plants =
  "alder aster basil borage broom clover comfrey daisy dill fennel foxglove gorse hazel heather hyssop ivy lavender linden lupin maple marjoram mint oak phacelia poppy rosemary sage sedum sorrel thistle thyme vetch violet willow yarrow".split(
    " ",
  );

/** @param chance  two numbers in [0, 1); a third for a suffix when the plain name is taken */
export function inventName(chance: readonly [number, number], suffix?: number): string {
  const pick = (list: readonly string[], at: number): string => list[Math.floor(at * list.length)] ?? "bee";
  const name = `${pick(moods, chance[0])}_${pick(plants, chance[1])}`;
  return suffix === undefined ? name : `${name}${suffix}`;
}
