-- Who waits for an older upgrade to give way is a member as much as those who are idle: `Batch::members`.
DROP INDEX batches_by_status;
ALTER TABLE batches DROP COLUMN status;
ALTER TABLE batches ADD COLUMN status TEXT NOT NULL GENERATED ALWAYS AS (CASE
    WHEN idle + in_progress + takeovers > 0 THEN
        CASE WHEN in_progress + success + failed + aborted + cancelled > 0
            THEN 'in-progress' ELSE 'idle' END
    WHEN failed > 0 THEN 'failed'
    WHEN aborted > 0 THEN 'aborted'
    WHEN cancelled > 0 THEN 'cancelled'
    WHEN success > 0 THEN 'success'
    ELSE 'idle' END) VIRTUAL;
CREATE INDEX batches_by_status ON batches (status, created);

-- The latest words of a batch, without sorting all of it.
CREATE INDEX operations_of_batch_by_modified ON operations (batch, modified) WHERE batch IS NOT NULL;

-- Whether an image may be deleted: of 100,000 operations that have ended none is looked at.
CREATE INDEX operations_that_may_need_an_image ON operations (image, status)
    WHERE status IN ('idle', 'in-progress', 'failed');
