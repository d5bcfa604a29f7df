// Stands for llama.cpp's ggml.h, of which common/json.cpp uses one macro. Only cmake/jinja sees it.
#pragma once

#include <cstdlib>

#define GGML_ASSERT(condition) ((condition) ? (void)0 : std::abort())
