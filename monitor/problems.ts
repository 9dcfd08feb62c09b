/** Texts of the page about the stages: problems with the next command to run, and one verdict on the pipeline. */
import { counted } from '../runtime/counted.ts';
import { shellWord } from '../runtime/terminal.ts';
import { historyText, type StageLine, startCommands } from './stage-history.ts';

type Severity = 'bad' | 'note';

export interface PipelineProblem {
  readonly severity: Severity;
  readonly text: string;
  /** The next command to run; null when there is none. */
  readonly command: string | null;
}

export interface PipelineVerdict {
  readonly severity: Severity | 'good';
  readonly text: string;
  readonly command: string | null;
}

/** A shorter time until the oldest unread message expires is a problem. */
const expiresSoonMs = 6 * 60 * 60_000;

/** Names of a stage and of one member, and the command that starts one or, for other groups, shows the group. */
function wordsOf({ name, group: { group } }: StageLine) {
  switch (name) {
    case 'processors':
      return { subject: 'Processors', member: 'processor', start: startCommands.processors };
    case 'sink':
      return { subject: 'The sink', member: 'sink', start: startCommands.sink };
    case 'other': {
      const start = `reelflow lag --group ${shellWord(group)} --watch`;
      return { subject: `Group ${group}`, member: `member of group ${group}`, start };
    }
  }
}

/** Problems of a stage. @param places options of a command that works on this pipeline, with a blank before each */
export function problemsOf(stage: StageLine, places: string): PipelineProblem[] {
  const { name, group, history } = stage;
  const { subject, member, start } = wordsOf(stage);
  const [is, has] = name === 'processors' ? ['are', 'have'] : ['is', 'has'];
  const { state, lag, members } = group;
  const startCommand = name === 'other' ? start : start + places;
  const inspect = name === 'other' ? start : `reelflow lag --watch${places}`;
  const waiting =
    lag === null ? 'the lag is unknown' : `${counted(lag, 'message')} ${lag === 1 ? 'waits' : 'wait'}`;
  const bad = (text: string, command: string): PipelineProblem => ({ severity: 'bad', text, command });
  const note = (text: string, command: string): PipelineProblem => ({ severity: 'note', text, command });
  const problems: PipelineProblem[] = [];
  if (group.problem !== null)
    problems.push(bad(`Group ${group.group} could not be read: ${group.problem}`, inspect));
  const past = historyText(history);
  const how = past === undefined ? '' : ` (${name === 'processors' ? 'the stage' : 'it'} ${past})`;
  switch (state) {
    case 'LOST':
      problems.push(
        bad(
          `${subject} ${has} lost ${counted(group.lost ?? 0, 'message')}: the broker deleted them before they were read.`,
          inspect,
        ),
      );
      break;
    case 'STOP':
      problems.push(
        bad(`${subject} ${has} stopped: no member is running, and ${waiting}${how}.`, startCommand),
      );
      break;
    case 'STALL':
      problems.push(
        bad(`${subject} ${is} stalled: a member is assigned but makes no progress, and ${waiting}.`, inspect),
      );
      break;
    case 'ERR':
      problems.push(bad(`${subject} went back, or a topic ends before the committed offset.`, inspect));
      break;
    case 'WARN':
      problems.push(
        bad(`${subject} ${is} too slow: ${waiting}, and the lag does not decrease.`, startCommand),
      );
      break;
    default:
      // A missing member is no failure without waiting messages, but an operator must see that a member has ended.
      if (group.problem !== null) break;
      if (name === 'other' && !group.exists) {
        problems.push(note(`${subject} does not exist (yet).`, 'reelflow lag --group "*"'));
      } else if (members === 0) {
        const end = lag === 0 ? 'no messages wait' : lag === null ? 'its lag is unknown' : waiting;
        problems.push(note(`No ${member} is running; ${end}${how}.`, startCommand));
      }
  }
  if (group.expiresMs !== null && group.expiresMs < expiresSoonMs) {
    const minutes = Math.ceil(group.expiresMs / 60_000);
    problems.push(
      bad(
        `The oldest unread message of ${group.group} expires in ${counted(minutes, 'minute')}.`,
        startCommand,
      ),
    );
  }
  if ((group.blocked ?? 0) > 0) {
    const text = `An open transaction withholds ${counted(group.blocked ?? 0, 'message')} from ${group.group}.`;
    problems.push(note(text, 'kafka-transactions.sh find-hanging'));
  }
  return problems;
}

/** @param stages null when they could not be observed */
export function verdictOf(
  problems: readonly PipelineProblem[],
  stages: readonly StageLine[] | null,
): PipelineVerdict {
  const worst = problems.find(({ severity }) => severity === 'bad');
  if (worst !== undefined) return worst;
  const pipeline = stages?.filter(({ name }) => name !== 'other') ?? [];
  if (pipeline.length > 0 && pipeline.every(({ group }) => group.members === 0)) {
    return { severity: 'note', text: 'The pipeline is not running.', command: problems[0]?.command ?? null };
  }
  const isHealthy =
    pipeline.length > 0 &&
    pipeline.every(({ group: { state, members } }) => state === 'OK' && members !== null && members > 0);
  const severity = problems.length > 0 ? 'note' : 'good';
  const text = isHealthy ? 'The pipeline is healthy.' : 'No failure is known so far.';
  return { severity: isHealthy ? severity : 'note', text, command: null };
}
