/* What the device source of a scheme is written against (sy_scheme::device_source). CUDA C++ and, so that the same file
 * can be compiled and tried on the host, plain C++; it includes nothing. The source may include it and nothing else: the
 * program puts it in front anyhow. */
#ifndef SWITCHYARD_DEVICE_H
#define SWITCHYARD_DEVICE_H

#ifdef __CUDACC__
#define SY_DEVICE __device__
#else
#define SY_DEVICE inline
#endif

/* One token at one router. Nothing but what it points to may be read, nothing but `work` and the outputs written. */
typedef struct sy_device_in {
  const float* logits;           /* [E] finite, router bias in it; -inf: muted, not to be chosen */
  float* work;                   /* [E] the call's own, not initialised */
  const double* parameters;      /* [parameter_count] as sy_scheme_in::parameters */
  unsigned experts;              /* E */
  unsigned k;                    /* experts per token in force */
  unsigned slots;                /* S: room in the outputs */
  unsigned parameter_count;
  unsigned layer;                /* of the model, from 0 */
  unsigned row;                  /* routing row, from 0 */
  unsigned phase;                /* SY_PHASE_*: 0 several tokens run in one pass, 1 one */
  unsigned sequence;             /* number of the sequence */
  int token_id;
  unsigned long long position;   /* of the token in its sequence, from 0 */
} sy_device_in;

/* The one function that the source defines. One thread of the device calls it for one token; there is no shared memory,
 * no barrier and no other thread to wait for.
 *   in      see above
 *   id      [S] expert of each slot, 0 to E - 1, none twice, none muted
 *   weight  [S] finite; what the expert's output is multiplied by, before the model's routed scale
 *   flags   [S] SY_SLOT_*: 0 routed, 1 forced; 0 when called
 * Returns the slots used, 1 to S; 0: it cannot decide, the model's own router does. */
SY_DEVICE unsigned sy_device_route(const sy_device_in* in, int* id, float* weight, unsigned char* flags);

/* Number i of those that sy::Call::random(seed, …) gives for this token and row, bit for bit: in (0, 1), the same for the
 * same (seed, sequence, row, position). Philox4x32-10. */
SY_DEVICE float sy_device_random(const sy_device_in* in, unsigned long long seed, unsigned i) {
  seed ^= (unsigned long long)in->sequence << 32;
  unsigned c0 = (unsigned)in->position, c1 = (unsigned)(in->position >> 32), c2 = in->row, c3 = 0xC0000000u | i / 4;
  unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
    c0 = (unsigned)(b >> 32) ^ c1 ^ k0, c1 = (unsigned)b, c2 = (unsigned)(a >> 32) ^ c3 ^ k1, c3 = (unsigned)a;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  const unsigned word = i % 4 == 0 ? c0 : i % 4 == 1 ? c1 : i % 4 == 2 ? c2 : c3;
  const float number = (float)((word + 0.5) / 4294967296.0);
  return number < 0.99999994f ? number : 0.99999994f;
}

#endif
