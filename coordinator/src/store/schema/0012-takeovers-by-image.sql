-- Whether an image may be deleted: who waits to take the place of an older upgrade needs it as well.
CREATE INDEX batch_takeovers_by_image ON batch_takeovers (image);
