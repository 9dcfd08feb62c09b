/**
 * The words of the synthetic dataset, as bytes: each text of a generated row is encoded once, at the start, and later
 * only copied. The words do not depend on the seed.
 */

/** Byte strings laid end to end; the n-th is `bytes[start[n]]` up to `bytes[start[n + 1]]`, exclusive. */
export interface Pool {
  readonly bytes: Uint8Array;
  readonly start: Int32Array;
  readonly count: number;
}

/** @returns the pool of the UTF-8 bytes of `texts`, in their order */
export function poolOf(texts: readonly string[]): Pool {
  const encoded = texts.map((text) => Buffer.from(text));
  const start = new Int32Array(texts.length + 1);
  for (const [n, bytes] of encoded.entries()) start[n + 1] = (start[n] as number) + bytes.length;
  return { bytes: new Uint8Array(Buffer.concat(encoded)), start, count: texts.length };
}

const split = (words: string) => words.trim().split(/\s+/);
const pairs = (left: readonly string[], right: readonly string[], between = ' ') =>
  left.flatMap((a) => right.map((b) => a + between + b));

/** The 28 genres in alphabetical order, each with its popularity. */
const genrePopularity: Record<string, number> = {
  Action: 9,
  Adult: 6,
  Adventure: 8,
  Animation: 9,
  Biography: 2.5,
  Comedy: 26,
  Crime: 9,
  Documentary: 17,
  Drama: 40,
  Family: 11,
  Fantasy: 5,
  'Film-Noir': 0.3,
  'Game-Show': 7,
  History: 4,
  Horror: 5,
  Music: 7,
  Musical: 1.5,
  Mystery: 6,
  News: 12,
  'Reality-TV': 10,
  Romance: 13,
  'Sci-Fi': 5,
  Short: 16,
  Sport: 6,
  'Talk-Show': 14,
  Thriller: 6,
  War: 1.2,
  Western: 1,
};

/** Genres strings of one to three genres, each in alphabetical order, the most popular first. */
function genresByPopularity(): string[] {
  const genres = Object.entries(genrePopularity);
  const scored: { text: string; score: number }[] = [];
  for (const [i, [a, weightA]] of genres.entries()) {
    scored.push({ text: a, score: weightA * 4000 });
    for (const [j, [b, weightB]] of genres.entries()) {
      if (j <= i) continue;
      scored.push({ text: `${a},${b}`, score: weightA * weightB * 40 });
      for (const [c, weightC] of genres.slice(j + 1)) {
        scored.push({ text: `${a},${b},${c}`, score: weightA * weightB * weightC });
      }
    }
  }
  return scored.sort((x, y) => y.score - x.score || (x.text < y.text ? -1 : 1)).map(({ text }) => text);
}

/** As many distinct genres strings as the real dump holds, the most popular first. */
export const genres = poolOf(genresByPopularity().slice(0, 2381));

const adjectives =
  split(`Silent Golden Broken Hidden Last First Lost Midnight Crimson Empty Burning Frozen Secret Wild
  Gentle Distant Electric Forgotten Hollow Iron Little Great Long Bitter Blue Black White Red Green Velvet Paper Stolen
  Restless Sleeping Dancing Falling Endless Invisible Perfect Strange Summer Winter Autumn Spring Northern Southern
  Eastern Western Ancient Modern Young Old Happy Lonely Brave Quiet Loud Holy Savage Tender Royal Public Private Final`);
const nouns =
  split(`River City House Garden Train Letter Night Day Heart Road Bridge Island Mountain Ocean Shadow Mirror
  Window Door Song Dance War Peace King Queen Child Mother Father Brother Sister Stranger Detective Doctor Teacher
  Soldier Sailor Ghost Dragon Horse Wolf Bird Rose Star Moon Sun Storm Rain Snow Fire Stone Clock Game Circus Theatre
  Hotel Café School Kingdom Empire Frontier Highway Harbour Market Forest Dream`);
const foreignTitles =
  split(`L'été_d'Amélie La_niña_perdida Der_große_Schüler Das_Mädchen_von_Köln Città_perduta
  Пётр_и_Волк Война_и_мир Вечерний_город Белая_ночь 東京の夜 七人の影 花と雨 春が来た 红色的河 長安十日 天空之城
  서울의_봄 하얀_겨울 사랑의_기억 Πίσω_από_την_οθόνη Το_τελευταίο_τρένο Şarlo_Makinist Yaz_gecesi İstanbul_hatırası
  Kış_uykusu Żółta_łódź Młyn_i_krzyż Černý_Petr Příběh_o_městě Ősz_a_Dunán Öszi_éj Två_systrar Ærlige_mænd
  Håkons_hus Þögnin Sügisball Zvaigžņu_ceļš Noapte_albă O_coração_de_São_João Não_há_amanhã Ação_em_Belém
  ليلة_القمر مدينة_السلام עיר_הלבנה रात_की_रानी दिल_का_रास्ता நிலா_காலம் ফুলের_রাত คืนสุดท้าย Đêm_Hà_Nội 🎬_Cinéma`);
const plainTitles = [...pairs(adjectives, nouns), ...pairs(['The', 'A', 'My', 'Our', 'Dr.'], nouns)];

/** Titles of works, mostly English. */
export const titles = poolOf([
  ...plainTitles,
  ...plainTitles.filter((_, n) => n % 3 === 0).map((title) => `The ${title}`),
  ...foreignTitles.map((title) => title.replaceAll('_', ' ')),
]);
/** Titles in other languages: originals and regional names. */
export const foreign = poolOf([
  ...foreignTitles.map((title) => title.replaceAll('_', ' ')),
  ...foreignTitles.flatMap((title) =>
    nouns.slice(0, 20).map((noun) => `${title.replaceAll('_', ' ')} ${noun}`),
  ),
]);

/** Given names with the blank that follows them. */
export const givenNames = poolOf(
  split(`James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan Joseph
  Jessica Thomas Sarah Charles Karen Lauren Fred Brigitte Ingrid Marlon Sophia Marcello Federico Akira Toshirô Setsuko
  Satyajit Amitabh Zoë Chloë Renée José María Jesús Sofía Ángel Íñigo François Hélène Gérard Éric Benoît Jürgen Käthe
  Björn Åsa Søren Løvald Łukasz Małgorzata Jiří Zdeněk Ágnes Ödön Gökhan Şebnem Çağan İlker Nuri Xavier Wei Xiao Hiroshi
  Yūko Min-jun Ji-woo Anh Thị Олег Наталья Γιώργος Ελένη محمد ליאור आर्यन 志明`).map((name) => `${name} `),
);
/** Family names: real-looking ones composed of syllables, and a few that are not Latin. */
export const familyNames = poolOf([
  ...pairs(
    pairs(
      split('An Ber Cor Dal El Fer Gar Hol Ing Jan Kol Lin Mar Nor Ol Pet Ros San Tor Val'),
      split('a e i o u en er an in on ar'),
      '',
    ),
    split('son sen sky ski ez ini elli mann berg ström wood ton ley ford ović enko'),
    '',
  ),
  ...split(
    'Nguyễn Trần Müller Jørgensen Łukasiewicz Dvořák Şahin Öztürk Gonçalves Núñez Иванов Петрова 王 李 山田 김 이',
  ),
]);

/** Principals' categories with their shares; `acting` ones may carry characters, the others a job. */
const categoryShares: [name: string, share: number][] = [
  ['actor', 23.5],
  ['actress', 17.5],
  ['self', 13],
  ['archive_footage', 0.5],
  ['writer', 12.5],
  ['director', 8.7],
  ['producer', 8],
  ['editor', 6],
  ['cinematographer', 4.3],
  ['composer', 3.2],
  ['production_designer', 1.4],
  ['casting_director', 1.4],
];
export const categories = poolOf(categoryShares.map(([name]) => name));
export const categoryWeights = categoryShares.map(([, share]) => share);
/** Categories below this number are acting ones. */
export const actingCategories = 4;

const roles =
  split(`Self Narrator Host Guest Detective Nurse Waiter Mother Father Teacher Soldier Policeman Judge Priest
  Bartender Neighbour Reporter Driver Doctor King Queen Maid Contestant Panelist Singer Dancer Captain Sergeant`);
/** Values of `characters`: JSON arrays, some with two roles, some with escaped quotes. */
export const characters = poolOf([
  ...roles.map((role) => `["${role}"]`),
  ...pairs(adjectives, roles).map((role) => `["${role}"]`),
  ...pairs(roles.slice(0, 12), roles.slice(12), '","').map((role) => `["${role}"]`),
  ...adjectives.map((nick, n) => `["${roles[n % roles.length]} \\"${nick}\\" Malone"]`),
  ...foreignTitles.map((role) => `["${role.replaceAll('_', ' ')}"]`),
]);
export const jobs = poolOf([
  ...split(
    'producer writer scenario story director play novel screenplay adaptation book script editor creator',
  ),
  'written by',
  'executive producer',
  'director of photography',
  'based on the novel "Café Müller" by',
  'created by',
  'teleplay by',
]);

export const titleTypes = poolOf(
  split('tvEpisode tvSeries movie short video tvMovie tvMiniSeries tvSpecial videoGame tvShort'),
);
/** Shares of the types that are neither episode nor series, from `movie` on. */
export const otherTypeWeights = [36, 52, 15, 7.5, 3, 2.5, 2, 0.5];

export const professions = poolOf([
  ...split(`actor actress producer writer director miscellaneous camera_department art_department sound_department
    editorial_department music_department composer editor cinematographer stunts soundtrack make_up_department`),
  ...split(`actor,producer,writer actress,soundtrack actor,miscellaneous,producer director,writer,producer
    actor,archive_footage actress,archive_footage producer,miscellaneous composer,music_department,soundtrack
    editor,editorial_department camera_department,cinematographer writer,producer,director`),
]);

/** Region codes of alternative titles, the frequent ones first; some are of states that are gone. */
export const regions = poolOf(
  split(`JP FR IN DE IT ES PT US GB CA XWW BR MX RU PL TR GR HU AU AR SE FI CN UA BG CZ RO DK NL HK TW KR NO EG IL RS
  SUHH IR PH HR TH VN SG ID BE CL PE VE CO AT CH IE NZ ZA LT LV EE SI SK XWG DDDE CSHH XYU YUCS UY EC AE PR IS GE AZ AM
  KZ UZ BY MD AL BA MK ME LU MT CY MA TN DZ LB SY IQ JO SA KW QA BH OM YE PK BD LK NP MM KH LA MY BN MN KP XKO XEU XAS
  XSA XNA XPI XKV CU DO JM TT BS BB HT GT HN NI SV CR PA BO PY SR GY NG GH KE TZ UG RW ET SO SD LY CM CI SN ML BF NE TD
  GA CG CD AO ZM ZW MZ MG MU BW NA LS SZ MW BI DJ ER GM GN GW LR SL TG BJ MR CV ST GQ CF KM SC RE GP MQ GF PF NC FJ PG SB
  VU WS TO KI NR PW FM MH GU AS MP VI KY BM AG DM GD LC VC KN AI AW CW VG TC MS GI FO GL IM JE LI MC SM AD VA AF BT MV TL
  TM TJ KG PS EH MO AQ`),
);
export const languages = poolOf(
  split('ja fr hi de it es pt en tr ru bg sv yue cmn he fa ca ta te bn sr qbn uk el ar'),
);
export const akaTypes = poolOf([
  ...split('imdbDisplay alternative working tv dvd video festival'),
  'imdbDisplay\x02tv',
  'alternative\x02dvd',
]);
export const akaAttributes = poolOf([
  'literal title',
  'informal title',
  'complete title',
  'new title',
  'short title',
  'cut version',
  'transliterated title',
  'literal title\x02English title',
  'new title\x02informal title',
]);
