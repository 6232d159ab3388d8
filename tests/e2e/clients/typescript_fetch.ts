// Uses the client that `openapi-generator` generates for TypeScript with fetch. Prints what it saw as JSON.
// This generator takes only the first of several bodies of an operation, so its clients send no forms.

import { Configuration, ExtractApi, JobsApi, ResponseError } from './client/index.js';
import type { Job, Request } from './client/index.js';

declare const process: { argv: string[] };
declare const console: { log(text: string): void };

const [url, key, picture] = process.argv.slice(2) as [string, string, string];
const configuration = new Configuration({ basePath: url, accessToken: key });
const jobs = new JobsApi(configuration);
const extract = new ExtractApi(configuration);
const schema = { type: 'object', properties: { seen: { type: 'string' } }, required: ['seen'] };
const request: Request = { inputMethod: 'base64', images: [picture], prompt: 'Which number?' };

async function finished(body: Request): Promise<Job> {
    const accepted = await jobs.postJobs({ request: body, requestSource: 'generated' });
    let job = await jobs.getJob({ job: accepted.id });
    while (job.finishedAt === null) {
        job = await jobs.getJob({ job: accepted.id, wait: 30 });
    }
    return job;
}

async function refusal(call: Promise<unknown>): Promise<[number, string]> {
    try {
        await call;
    } catch (error) {
        if (error instanceof ResponseError) {
            return [error.response.status, (await error.response.json()).code];
        }
        throw error;
    }
    throw new Error('the service refused nothing');
}

const plain = await finished(request);
const result = await jobs.getJobResults({ job: plain.id });
const several: Request = { ...request, images: [picture, 'bm8gaW1hZ2U='], schema };
const records = await finished(several);
const { items } = await jobs.getJobItems({ job: records.id });
const each = await finished({ ...request, granularity: 'perImage' });
const waited = await extract.postExtractImage({ request });
const estimate = await extract.postExtractImageEstimate({ request: several });
const [, unknown] = await refusal(jobs.getJob({ job: 'job_none' }));
const stranger = new JobsApi(new Configuration({ basePath: url, accessToken: 'none' }));

console.log(
    JSON.stringify({
        plain: [plain.status, result.results, result.creditUsage],
        records: [records.status, ...items.map((item) => [item.status, item.code, item.result])],
        each: each.status,
        waited: waited.results,
        estimate: estimate.credits,
        unknown,
        refused: await refusal(stranger.postJobs({ request })),
    }),
);
