// Parts that the encoder-decoder families share (specs/families.md 1.12, 1.13). Called by the family files while a
// checkpoint opens.
#pragma once

#include <string>

#include "engine/model/plan.h"
#include "engine/model/plan_builder.h"

namespace switchyard {

struct Seq2SeqDefaults {
  TokenId padding = 0, eos = 0, decoder_start = 0;
};
// End, padding, decoder_start_token_id and forced_bos_token_id.
void read_seq2seq_ids(PlanBuilder& builder, ModelPlan& plan, const Seq2SeqDefaults& defaults);

// Names without ".weight": "shared", "encoder.embed_tokens", "decoder.embed_tokens".
struct Seq2SeqEmbedding {
  std::string shared, encoder, decoder;
};
// Embeddings and head. Tied unless the config says otherwise: one table serves both sides and the head, whichever of
// its names the file kept. Untied, a side that has a table of its own uses it (transformers 5 writes them).
void seq2seq_embedding(PlanBuilder& builder, ModelPlan& plan, const Seq2SeqEmbedding& names);

// Refuses more experts than the limit.
void check_expert_count(PlanBuilder& builder, int layers, int experts);

}  // namespace switchyard
