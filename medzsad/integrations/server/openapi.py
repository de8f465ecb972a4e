"""What OpenAPI says of an upload, which FastAPI cannot tell: the body is read piece by piece."""

from __future__ import annotations

from typing import Any

POST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "One scan: a NIfTI, NRRD, MetaImage or MGZ file, an image, the "
                            "DICOM files of a series, or a zip of these.",
                        },
                        "roi": {
                            "type": "string",
                            "format": "binary",
                            "description": "A mask on any grid: look only there.",
                        },
                        "options": {
                            "type": "string",
                            "description": "JSON object with options of `medzsad predict`.",
                            "example": '{"model": "medzsad-mini", "plane": "axial", "report": true}',
                        },
                    },
                }
            }
        },
    },
    "responses": {
        "202": {
            "description": "Taken; it waits in the queue.",
            "content": {
                "application/json": {
                    "example": {
                        "id": "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
                        "status": "queued",
                        "links": {"self": "/v1/predictions/0a1b2c3d4e5f60718293a4b5c6d7e8f9"},
                    }
                }
            },
        },
        "400": {
            "description": "The upload or an option cannot be used; the line says why.",
            "content": {"application/json": {"example": {"detail": "scan.nii.gz is empty (0 bytes); ..."}}},
        },
        "413": {"description": "Above the server's limits."},
        "429": {"description": "The queue is full; see Retry-After."},
    },
}
