// What every backend checks before it computes, so that all refuse the same requests in the same words.
// Called by each backend's forward() on the engine thread.
#pragma once

#include "engine/backend/backend.h"

namespace switchyard {

// Tokens within the vocabulary, room in the cache, buffers and frames of the right shape. An error here
// is a bug of the caller (kInternal), but for a full cache (kUsage), which a user can meet.
Result<void> check_request(const ModelPlan& plan, const ForwardRequest& request);

// ForwardRequest::end_layer, -1 resolved.
int end_layer(const ModelPlan& plan, const ForwardRequest& request);

// Flags the request's frames where its tokens do not pass every row (FrameFlags::kPartial).
void flag_partial(const ModelPlan& plan, const ForwardRequest& request);

}  // namespace switchyard
