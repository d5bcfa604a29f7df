// The launches of kernels.h: how many blocks, how much shared memory.
#include "engine/backend/cuda/attend.cuh"
#include "engine/backend/cuda/experts.cuh"
#include "engine/backend/cuda/pick.cuh"
#include "engine/backend/cuda/prefill.cuh"
#include "engine/backend/cuda/project.cuh"
#include "engine/backend/cuda/tensor.cuh"

namespace switchyard::cuda {
namespace {

unsigned parts(int64_t count, int64_t of) {
  return unsigned((count + of - 1) / of);
}
size_t floats(int64_t count) {
  return size_t(count) * sizeof(float);
}

int shared_heads(const AttendJob& job) {
  return job.heads / job.place.kv_heads;
}

// Dims of a lane and queries of a block, by the length of a key.
struct AttendShape {
  int per_lane, queries;
};
AttendShape attend_shape(const AttendJob& job) {
  const int dims = job.place.head_dim > job.place.value_dim ? job.place.head_dim : job.place.value_dim;
  return dims <= 128 ? AttendShape{4, 8} : dims <= 256 ? AttendShape{8, 4} : AttendShape{18, 2};
}

template <int kPerLane, int kQueries>
void launch_attend_shape(Stream& stream, const StepState* state, const AttendJob& job, int splits, int tokens) {
  const dim3 grid(attend_groups(job), unsigned(splits), unsigned(tokens));
  const size_t shared = floats(int64_t(kAttendWarps) * kQueries * (job.place.value_dim + 2));
  if (job.place.type == Stored::kF32)
    launch(stream, "attend", grid, kAttendThreads, shared, attend<float, kPerLane, kQueries>, state, job);
  else
    launch(stream, "attend", grid, kAttendThreads, shared, attend<uint16_t, kPerLane, kQueries>, state, job);
}

}  // namespace

void launch_embed(Stream& stream, const StepState* state, const Matrix& table, float scale, float* hidden, int tokens) {
  launch(stream, "embed", dim3(parts(table.cols, kProjectThreads), unsigned(tokens)), kProjectThreads, 0, embed, state,
         table, scale, hidden);
}

void launch_norm_rows(Stream& stream, const float* in, const Norm& norm, int n, float* normed, int tokens) {
  launch(stream, "norm_rows", unsigned(tokens), kProjectThreads, floats(n), norm_rows, in, norm, n, normed);
}

void launch_project(Stream& stream, const Projection& job) {
  launch(stream, "project", project_blocks(stream, job.rows()), kProjectThreads, floats(job.cols), project, job);
}

void launch_project_heads(Stream& stream, const HeadProjection& job, int tokens) {
  if (tokens > 1 && job.matrix.type == Stored::kBF16)
    return launch(stream, "heads_tensor",
                  dim3(parts(tokens, kTensorTokens), parts(job.rows, kTensorRows), unsigned(job.heads)), kTensorThreads,
                  0, heads_tensor, job, tokens);
  launch(stream, "project_heads",
         dim3(parts(job.rows, 4 * kProjectThreads / kWarp), unsigned(job.heads), unsigned(tokens)), kProjectThreads,
         floats(job.matrix.cols), project_heads, job);
}

void launch_finish_heads(Stream& stream, const StepState* state, const HeadJob& job, int tokens) {
  launch(stream, "finish_heads", dim3(unsigned(job.heads + 2 * job.place.kv_heads), unsigned(tokens)), kHeadThreads,
         floats(job.place.head_dim), finish_heads, state, job);
}

void launch_finish_latents(Stream& stream, const StepState* state, const LatentJob& job, int tokens) {
  launch(stream, "finish_latents", dim3(unsigned(1 + job.heads), unsigned(tokens)), kHeadThreads,
         floats(job.place.head_dim), finish_latents, state, job);
}

unsigned attend_groups(const AttendJob& job) {
  return unsigned(job.place.kv_heads) * parts(shared_heads(job), attend_shape(job).queries);
}

void launch_attend(Stream& stream, const StepState* state, const AttendJob& job, int splits, int tokens) {
  switch (attend_shape(job).per_lane) {
    case 4:
      return launch_attend_shape<4, 8>(stream, state, job, splits, tokens);
    case 8:
      return launch_attend_shape<8, 4>(stream, state, job, splits, tokens);
    default:
      return launch_attend_shape<18, 2>(stream, state, job, splits, tokens);
  }
}

void launch_attend_shares(Stream& stream, const StepState* state, const AttendJob& job, int window, float* shares,
                          int tokens) {
  launch(stream, "attend_shares", unsigned(tokens), kAttendThreads, floats(window), attend_shares, state, job, window,
         shares);
}

void launch_route(Stream& stream, const StepState* state, const Projection& router, const RouteJob& job,
                  unsigned* arrived) {
  const size_t room = GateRoom::bytes(job.width, job.slots), input = floats(router.cols);
  launch(stream, "route", project_blocks(stream, router.rows()), kProjectThreads, room > input ? room : input, route,
         state, router, job, arrived);
}

void launch_route_rows(Stream& stream, const StepState* state, const RouteJob& job, int tokens) {
  launch(stream, "route_rows", unsigned(tokens), kWarp, GateRoom::bytes(job.width, job.slots), route_rows, state, job);
}

void launch_expert_units(Stream& stream, const ExpertJob& job) {
  const unsigned tiles = parts(job.width, 2 * kProjectThreads / kWarp);
  launch(stream, "expert_units", dim3(tiles, unsigned(job.chosen.slots + (job.shared ? 1 : 0))), kProjectThreads,
         floats(job.hidden), expert_units, job);
}

void launch_expert_down(Stream& stream, const ExpertJob& job) {
  // As many slots at once as leave room for two blocks on a processor, and one at least.
  const int64_t all = int64_t(job.chosen.slots + 1) * job.width, most = kMostShared / 2 / int64_t(sizeof(float));
  const int64_t room = all < most ? all : most / job.width > 0 ? most / job.width * job.width : job.width;
  const unsigned needed = parts(job.hidden, kDownThreads / kWarp);
  launch(stream, "expert_down", needed < unsigned(4 * stream.processors) ? needed : unsigned(4 * stream.processors),
         kDownThreads, floats(room), expert_down, job, int(room));
}

void launch_multiply_tiles(Stream& stream, const TileJob& job) {
  if (job.matrix.type == Stored::kBF16)
    return launch(stream, "multiply_tensor", dim3(parts(job.tokens, kTensorTokens), parts(job.matrix.rows, kTensorRows)),
                  kTensorThreads, 0, multiply_tensor, job);
  launch(stream, "multiply_tiles", dim3(parts(job.matrix.rows, kTile), parts(job.tokens, kTile)), kTileThreads, 0,
         multiply_tiles, job);
}

void launch_sort_slots(Stream& stream, const Chosen& chosen, int tokens, int experts, const Sorted& sorted) {
  launch(stream, "count_slots", unsigned(experts), kWarp, 0, count_slots, chosen, tokens, sorted);
  launch(stream, "place_slots", unsigned(experts), kWarp, 0, place_slots, chosen, tokens, sorted);
}

void launch_group_units(Stream& stream, const GroupJob& job, int groups, int most_rows) {
  if (job.bf16)
    return launch(stream, "group_units_tensor",
                  dim3(parts(most_rows, kTensorTokens), parts(job.form.width, 64), unsigned(groups)), kTensorThreads, 0,
                  group_units_tensor, job);
  launch(stream, "group_units", dim3(parts(job.form.width, kTile), parts(most_rows, kTile), unsigned(groups)),
         kTileThreads, 0, group_units, job);
}

void launch_group_down(Stream& stream, const GroupJob& job, int hidden, int groups, int most_rows) {
  if (job.bf16)
    return launch(stream, "group_down_tensor",
                  dim3(parts(most_rows, kTensorTokens), parts(hidden, kTensorRows), unsigned(groups)), kTensorThreads, 0,
                  group_down_tensor, job, hidden);
  launch(stream, "group_down", dim3(parts(hidden, kTile), parts(most_rows, kTile), unsigned(groups)), kTileThreads, 0,
         group_down, job, hidden);
}

void launch_combine(Stream& stream, const CombineJob& job, int tokens) {
  launch(stream, "combine", dim3(parts(job.hidden, kTileThreads), unsigned(tokens)), kTileThreads, 0, combine, job);
}

void launch_pick(Stream& stream, const PickJob& job) {
  launch(stream, "pick", 1, kPickThreads, 0, pick, job);
}

void launch_tell_host(Stream& stream, const StepState* state, uint64_t* done) {
  launch(stream, "tell_host", 1, kWarp, 0, tell_host, state, done);
}

}  // namespace switchyard::cuda
