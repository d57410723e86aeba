-- Lists that are narrowed by a status or an image: counted inside an index, and read from it in their order. What
-- is under way changes `modified` with every word of its device, and is left out where that is in the index.
CREATE INDEX operations_of_batch_by_status ON operations (batch, status, created)
    WHERE batch IS NOT NULL;
CREATE INDEX operations_of_batch_by_status_and_modified ON operations (batch, status, modified)
    WHERE batch IS NOT NULL AND status <> 'in-progress';
CREATE INDEX operations_of_organization_by_status ON operations (organization, status, created);
CREATE INDEX operations_of_organization_by_image ON operations (organization, image, created);

-- The device's, which never changes: a join would be made for every row that is counted.
ALTER TABLE device_firmware ADD COLUMN organization TEXT REFERENCES organizations (id);
UPDATE device_firmware
    SET organization = (SELECT d.organization FROM devices d WHERE d.id = device_firmware.device);
CREATE INDEX device_firmware_of_organization ON device_firmware (organization, created);
CREATE INDEX device_firmware_of_organization_by_modified ON device_firmware (organization, modified);
